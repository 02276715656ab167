from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.meters.catalog import MeterMaker
from agent.meters.overhead import OverheadMeter
from agent.meters.rapl import RaplMeter
from hil.clock import ManualClock
from hil.devices import Meter
from hil.yamlfile import load


def made(tmp_path: Path, entry: str) -> tuple[Meter | None, list[str]]:
    """The meter of an entry in an agent's configuration, and what is wrong with it."""
    path = tmp_path / "agent.yaml"
    path.write_text(f"site: lab\nnode: server-1\nmeters:\n  - {entry}\n")
    document = load(path, AgentConfig)
    maker = MeterMaker(document, ManualClock())
    (config,) = document.value.meters
    meter = maker.make(config, ("meters", 0), document.value.interval_of(config))
    return meter, [str(fault).replace(f"{tmp_path}/", "") for fault in document.faults]


def test_rapl_below_a_folder_beside_the_configuration(tmp_path: Path) -> None:
    meter, faults = made(tmp_path, "{name: cpu, kind: rapl, sysfs_root: sys, zones: psys}")
    assert isinstance(meter, RaplMeter)
    assert (meter.name, faults) == ("cpu", [])


@pytest.mark.parametrize(
    ("overhead", "wrapped"),
    [("", False), (", pue: 1.0, offset_w: 0", False), (", pue: 1.3", True), (", offset_w: 12", True)],
)
def test_overhead_goes_around_any_meter_that_has_some(tmp_path: Path, overhead: str, wrapped: bool) -> None:
    for kind in ("kind: rapl", "kind: cpu, idle_w: 10, max_w: 60"):
        meter, faults = made(tmp_path, f"{{name: cpu, {kind}{overhead}}}")
        assert (isinstance(meter, OverheadMeter), faults) == (wrapped, [])


def test_a_file_of_pues_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    _, faults = made(tmp_path, "{name: cpu, kind: rapl, pue: {file: pue.csv}}")
    assert faults == ["pue.csv: file: unreadable: No such file or directory"]
