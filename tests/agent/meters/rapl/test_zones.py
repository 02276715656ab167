import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.meters.rapl.errors import NotReadable, Unfit
from agent.meters.rapl.zones import ZoneKind, choose, find_zones

Make = Callable[..., Any]


def labels(root: Path) -> list[str]:
    return [zone.label for zone in find_zones(root).zones]


def tree(root: Path, **names: str) -> Path:
    """A bare tree: folder name (``__`` for a colon) to zone name."""
    for folder, name in names.items():
        place = root / "class/powercap" / folder.replace("__", ":").replace("_", "-")
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
    return root


def test_a_laptop(machine: Make) -> None:
    found = find_zones(machine(psys=True, mmio=True).root)
    assert [zone.label for zone in found.zones] == ["package-0", "package-0/core", "package-0/uncore", "psys"]
    assert [zone.label for zone in found.twins] == ["package-0"]
    assert found.twins[0].folder.name == "intel-rapl-mmio:0"


def test_a_server_with_dies_and_more_zones_than_ten(machine: Make) -> None:
    root = machine(packages=4, dies=3, dram_share=0.2).root
    assert (root / "class/powercap/intel-rapl:b:2/name").read_text() == "dram\n"
    found = labels(root)
    assert found[-4:] == ["package-3-die-2", "package-3-die-2/core", "package-3-die-2/uncore", "package-3-die-2/dram"]
    assert len(found) == 48


@pytest.mark.parametrize(
    ("vendor", "capped", "range_uj"), [("amd", False, 65_532_610_987), ("intel", True, 262_143_328_850)]
)
def test_amd_counts_in_a_smaller_range_and_has_no_limits(
    machine: Make, vendor: str, capped: bool, range_uj: int
) -> None:
    package, core, *_ = find_zones(machine(vendor=vendor).root).zones
    assert (package.label, package.capped(), package.range_uj()) == ("package-0", capped, range_uj)
    assert (core.label, core.capped()) == ("package-0/core", False)


def test_mmio_alone_is_no_twin(tmp_path: Path) -> None:
    found = find_zones(tree(tmp_path, intel_rapl_mmio__0="package-0"))
    assert ([zone.label for zone in found.zones], found.twins) == (["package-0"], ())


def test_other_control_types_are_left_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, dtpm__0="soc", intel_rapl__0="package-0", intel_rapl="", intel_rapl__x="package-1")
    assert labels(root) == ["package-0"]


def test_unknown_zones_are_known_by_name_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, intel_rapl__0="package-0", intel_rapl__0__0="vpu")
    assert [(zone.kind, zone.label) for zone in find_zones(root).zones] == [
        (ZoneKind.PACKAGE, "package-0"),
        (ZoneKind.OTHER, "package-0/vpu"),
    ]


@pytest.mark.parametrize("folder", ["", "class", "class/powercap"])
def test_a_machine_without(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(NotReadable, match="no powercap here"):
        find_zones(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "class").write_text("")
    with pytest.raises(NotReadable, match="not a directory"):
        find_zones(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"\xff\xfe", "holds garbage"), (b"package-0" * 9, "holds garbage"), (None, "is gone")]
)
def test_a_name_that_is_none(machine: Make, content: bytes | None, problem: str) -> None:
    root = machine().root
    name = root / "class/powercap/intel-rapl:0/name"
    name.unlink()
    if content is not None:
        name.write_bytes(content)
    with pytest.raises(NotReadable, match=f"intel-rapl:0: name {problem}"):
        find_zones(root)


@pytest.mark.parametrize("content", ["", "0", "many", "-5", "1e9", "½", "9" * 70])
def test_a_range_that_is_none(machine: Make, content: str) -> None:
    zone = find_zones(machine().root).zones[0]
    (zone.folder / "max_energy_range_uj").chmod(0o644)
    (zone.folder / "max_energy_range_uj").write_text(content)
    with pytest.raises(NotReadable, match="package-0: max_energy_range_uj"):
        zone.range_uj()


def test_a_pipe_does_not_block(machine: Make) -> None:
    root = machine().root
    name = root / "class/powercap/intel-rapl:0/name"
    name.unlink()
    os.mkfifo(name)
    with pytest.raises(NotReadable, match="name: not a file"):
        find_zones(root)


def chosen(root: Path, *wanted: str) -> list[str]:
    return [zone.label for zone in choose(find_zones(root).zones, wanted or None)]


def test_packages_and_their_dram_unless_asked_otherwise(machine: Make) -> None:
    server = machine(packages=2, dram_share=0.2, psys=True).root
    dram = ["package-0", "package-0/dram", "package-1", "package-1/dram"]
    assert chosen(server) == dram
    assert chosen(server, "package", "dram") == dram
    assert chosen(server, "package-1") == ["package-1"]
    assert chosen(server, "package-0/dram", "package-1") == ["package-0/dram", "package-1"]
    assert chosen(server, "psys") == ["psys"]
    assert chosen(server, "core", "uncore", "dram")[:3] == ["package-0/core", "package-0/uncore", "package-0/dram"]
    assert chosen(machine().root) == ["package-0"]


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (["psys", "package"], "psys covers the whole platform: package-0 would be counted twice"),
        (["psys", "package-0/core"], "psys covers the whole platform"),
        (["package", "core"], "package-0 covers package-0/core: its energy would be counted twice"),
        (["dram"], "no zone dram here; there are package-0, package-0/core, package-0/uncore, psys"),
        (["package", "packages"], "no zone packages here"),
    ],
)
def test_what_would_be_wrong_is_refused(machine: Make, wanted: list[str], problem: str) -> None:
    with pytest.raises(Unfit, match=problem):
        chosen(machine(psys=True).root, *wanted)


def test_without_packages_there_is_no_default(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no zone package here; there is psys"):
        chosen(tree(tmp_path, intel_rapl__0="psys"))


def test_several_platforms_are_not_added(tmp_path: Path) -> None:
    root = tree(tmp_path, intel_rapl__0="psys", intel_rapl__1="psys-1")
    with pytest.raises(Unfit, match="psys covers the whole platform: psys-1 would be counted twice"):
        chosen(root, "psys", "psys-1")
    with pytest.raises(Unfit, match="would be counted twice"):
        chosen(tree(tmp_path / "b", intel_rapl__0="psys-0", intel_rapl__1="psys-1"), "psys")
    assert chosen(tmp_path / "b", "psys-1") == ["psys-1"]
