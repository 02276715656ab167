from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agent.diagnosis import Finding, SourceState
from agent.meters.rapl import RaplMeterConfig
from agent.meters.rapl.diagnosis import diagnose
from hil.clock import SystemClock

HERE = Path("/sys/class/powercap").exists()
Make = Callable[..., Any]


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Callable[..., Path]:
    def write(vendor: str = "", flags: str = "fpu sse2") -> Path:
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
        return path

    return write


async def found_on(server: Any, cpuinfo: Path) -> list[Finding]:
    """What is found while the emulated counters move with the time that the diagnosis lets pass."""
    clock = server.clock
    sleep = clock.sleep_until

    async def sleep_until(deadline: float) -> None:
        await sleep(deadline)
        server.refresh()

    clock.sleep_until = sleep_until
    return await diagnose(server.root, clock, cpuinfo)


async def test_a_laptop_has_two_meters_with_readings_and_entries_that_work(
    machine: Make, cpuinfo: Callable[..., Path]
) -> None:
    server = machine(100.0, psys=True, mmio=True)
    found = await found_on(server, cpuinfo("GenuineIntel"))
    assert [(finding.source, finding.state) for finding in found] == [
        ("RAPL package-0", SourceState.OK),
        ("RAPL psys", SourceState.OK),
    ]
    assert found[0].reason == "Intel: energy yes, cap yes (two limits, by MSR and by MMIO, of which the lower holds)"
    assert found[1].reason == "Intel: energy yes, cap yes"
    assert [finding.reading_w for finding in found] == [pytest.approx(100.0, rel=1e-3)] * 2
    for finding, zones in zip(found, [("package",), ("psys",)], strict=True):
        (entry,) = yaml.safe_load(finding.snippet)
        config = msgspec.convert(entry, RaplMeterConfig)
        assert (config.wanted, config.sysfs_root) == (zones, str(server.root))


async def test_a_server(machine: Make, cpuinfo: Callable[..., Path]) -> None:
    server = machine(300.0, packages=2, dram_share=0.2)
    (finding,) = await found_on(server, cpuinfo("GenuineIntel"))
    assert finding.source == "RAPL package-0, package-0/dram, package-1, package-1/dram"
    assert finding.reading_w == pytest.approx(300.0, rel=1e-3)
    assert yaml.safe_load(finding.snippet)[0]["zones"] == ["package", "dram"]


async def test_amd_gives_energy_and_takes_no_cap(machine: Make, cpuinfo: Callable[..., Path]) -> None:
    (finding,) = await found_on(machine(vendor="amd"), cpuinfo("AuthenticAMD"))
    assert (finding.state, finding.reason) == (SourceState.OK, "AMD: energy yes, cap no")


@pytest.mark.parametrize(
    ("vendor", "flags", "reason"),
    [
        ("GenuineIntel", "sse2 hypervisor", "no powercap here (a virtual machine, whose host keeps the counters"),
        ("AuthenticAMD", "sse2", "no powercap here (the kernel module intel_rapl_msr is not loaded"),
        ("", "", "no powercap here (Intel's and AMD's processors have it)"),
    ],
)
async def test_a_machine_without(
    tmp_path: Path, cpuinfo: Callable[..., Path], vendor: str, flags: str, reason: str
) -> None:
    (finding,) = await diagnose(tmp_path / "sys", SystemClock(), cpuinfo(vendor, flags))
    assert (finding.state, finding.reading_w, finding.snippet) == (SourceState.ABSENT, None, "")
    assert finding.reason.startswith(reason)


async def test_no_permission_names_the_group(forbidden_root: Path) -> None:
    (finding,) = await diagnose(forbidden_root, SystemClock())
    assert finding.state is SourceState.UNREADABLE
    assert finding.reason == "energy_uj: permission denied, needs group wattloop-meters (see docs/how-to/rapl.md)"
    assert finding.snippet


async def test_a_tree_that_is_broken_is_unreadable(machine: Make, cpuinfo: Callable[..., Path]) -> None:
    server = machine()
    (server.powercap / "intel-rapl:0/name").unlink()
    (finding,) = await diagnose(server.root, SystemClock(), cpuinfo())
    assert (finding.state, finding.reason) == (SourceState.UNREADABLE, "intel-rapl:0: name is gone")


async def test_parts_of_a_processor_alone_make_no_meter(tmp_path: Path) -> None:
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("core\n")
    (finding,) = await diagnose(tmp_path, SystemClock())
    assert (finding.state, finding.reason) == (SourceState.ABSENT, "neither package nor psys here, only core")


async def test_the_truth_about_this_machine() -> None:
    found = await diagnose(Path("/sys"), SystemClock())
    assert found
    if not HERE:
        assert [finding.state for finding in found] == [SourceState.ABSENT]
    for finding in found:
        assert (finding.reading_w is not None) == (finding.state is SourceState.OK)
        assert finding.reason
