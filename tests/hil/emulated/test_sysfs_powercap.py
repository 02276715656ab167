from pathlib import Path
from typing import Any

import msgspec
import pytest

from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode, NodeTraits
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree

INTEL_UJ, AMD_UJ = 262_143_328_850, 65_532_610_987


class Shown:
    """A tree, and its counters as a reader finds them."""

    def __init__(self, root: Path, power_w: float = 100.0, max_w: float = 400.0, **layout: Any) -> None:
        self.node = EmulatedNode("a", ConstantLoad(power_w=power_w).demand(), NodeTraits(max_w=max_w))
        config = msgspec.convert({"name": "r", "node": "a", "root": str(root)} | layout, RaplConfig)
        self.tree = EmulatedPowercap(config, Tree(root), self.node)
        self.tree.begin()
        self.folder = root / "class/powercap"

    def after(self, seconds: float) -> dict[str, int]:
        self.node.advance(seconds)
        self.tree.show()
        return {
            f"{zone.name} {(zone / 'name').read_text().strip()}": int((zone / "energy_uj").read_text())
            for zone in sorted(self.folder.iterdir())
            if ":" in zone.name
        }


def test_packages_and_dram_share_what_the_node_draws_and_psys_shows_it_whole(tmp_path: Path):
    shown = Shown(tmp_path, packages=2, dram_share=0.2, psys=True, mmio=True)
    assert {zone: round(count / 1e6) for zone, count in shown.after(100.0).items()} == {
        "intel-rapl-mmio:0 package-0": 4000,
        "intel-rapl:0 package-0": 4000,
        "intel-rapl:0:0 core": 2800,
        "intel-rapl:0:1 uncore": 400,
        "intel-rapl:0:2 dram": 1000,
        "intel-rapl:1 package-1": 4000,
        "intel-rapl:1:0 core": 2800,
        "intel-rapl:1:1 uncore": 400,
        "intel-rapl:1:2 dram": 1000,
        "intel-rapl:2 psys": 10_000,
    }


def test_amd_shows_packages_and_cores_in_finer_steps_and_no_limits(tmp_path: Path):
    shown = Shown(tmp_path, vendor="amd")
    assert [*shown.after(1.0)] == ["intel-rapl:0 package-0", "intel-rapl:0:0 core"]
    assert int((shown.folder / "intel-rapl:0/max_energy_range_uj").read_text()) == AMD_UJ
    assert list(tmp_path.rglob("constraint_*")) == []


def test_dies_are_packages_of_their_own_numbered_in_hexadecimal(tmp_path: Path):
    shown = Shown(tmp_path, packages=6, dies=2)
    assert (shown.folder / "intel-rapl:b/name").read_text() == "package-5-die-1\n"


def test_a_counter_moves_in_whole_steps(tmp_path: Path):
    shown = Shown(tmp_path, power_w=1.0)
    # 100, 200, 300, 400 µJ in steps of 61.035 µJ
    assert [shown.after(0.0001)["intel-rapl:0 package-0"] for _ in range(4)] == [61, 183, 244, 366]


@pytest.mark.parametrize(("vendor", "range_uj"), [("intel", INTEL_UJ), ("amd", AMD_UJ)])
def test_a_counter_comes_round_at_its_range(tmp_path: Path, vendor: str, range_uj: int):
    shown = Shown(tmp_path, vendor=vendor, start_j=range_uj / 1e6 - 50)
    before = shown.after(0.4)["intel-rapl:0 package-0"]
    assert range_uj - 50_000_000 < before <= range_uj
    assert 0 <= shown.after(0.4)["intel-rapl:0 package-0"] < 50_000_000


def test_a_reset_starts_at_nothing(tmp_path: Path):
    shown = Shown(tmp_path, start_j=1000)
    assert shown.after(1.0)["intel-rapl:0 package-0"] > 1000e6
    shown.tree.reset()
    assert shown.after(0.0)["intel-rapl:0 package-0"] == 0
    assert shown.after(1.0)["intel-rapl:0 package-0"] == pytest.approx(100e6, rel=1e-4)


@pytest.mark.parametrize(
    ("layout", "max_w", "limit_w"),
    [({}, 200.0, 200), ({}, 1e9, 400), ({"packages": 2}, 200.0, 100), ({"tdp_w": 65}, 200.0, 65)],
)
def test_limits_follow_what_the_node_can_draw(tmp_path: Path, layout: dict[str, Any], max_w: float, limit_w: int):
    zone = Shown(tmp_path, max_w=max_w, **layout).folder / "intel-rapl:0"
    assert int((zone / "constraint_0_power_limit_uw").read_text()) == limit_w * 1_000_000
    assert int((zone / "constraint_1_power_limit_uw").read_text()) == limit_w * 1_250_000
    assert (zone / "constraint_1_name").read_text() == "short_term\n"


def test_processors_tell_their_packages(tmp_path: Path):
    Shown(tmp_path, packages=3)
    processors = tmp_path / "devices/system/cpu"
    assert (processors / "present").read_text() == "0-2\n"
    assert (processors / "cpu2/topology/physical_package_id").read_text() == "2\n"


def test_amd_has_neither_dram_nor_psys():
    with pytest.raises(msgspec.ValidationError, match="packages and cores alone"):
        msgspec.convert({"name": "r", "node": "a", "root": "x", "vendor": "amd", "psys": True}, RaplConfig)


def test_a_limit_that_is_written_caps_the_node(tmp_path: Path):
    shown = Shown(tmp_path, power_w=300, packages=2, dram_share=0.2, mmio=True)
    first, twin, second = (shown.folder / zone for zone in ("intel-rapl:0", "intel-rapl-mmio:0", "intel-rapl:1"))

    def limit(zone: Path, text: str) -> float | None:
        (zone / "constraint_0_power_limit_uw").write_text(text)
        shown.tree.obey()
        return shown.node.cap_w

    shown.tree.obey()
    assert shown.node.cap_w is None
    assert limit(first, "80000000\n") == pytest.approx((80 + 160) / 0.8)
    assert limit(second, "80000000\n") == pytest.approx((80 + 80) / 0.8)
    assert limit(twin, "40000000\n") == pytest.approx((40 + 80) / 0.8)  # the lower of two registers is in force
    assert limit(twin, "") == pytest.approx((40 + 80) / 0.8)  # caught in the middle of a write
    assert limit(twin, "160000000\n") == pytest.approx((80 + 80) / 0.8)
    assert limit(first, "160000000\n") is not None
    assert limit(second, "160000000\n") is None
    shown.node.cap_w = 5.0
    shown.tree.obey()
    assert shown.node.cap_w == 5.0  # what nobody wrote here is another's business
