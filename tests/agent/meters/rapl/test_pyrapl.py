"""pyRAPL as the second way to the same counters. It reads one fixed path, so the tree is mounted there: root only.

The mount is made in a namespace of its own, which ends with the process that asked for it.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.meters.rapl.errors import Unfit
from agent.meters.rapl.pyraplcounters import load_pyrapl, open_pyrapl
from agent.meters.rapl.zones import choose, find_zones

Make = Callable[..., Any]

BOTH_WAYS = """
import json, logging, sys
from pathlib import Path
from agent.meters.rapl.counters import open_powercap
from agent.meters.rapl.errors import NotReadable, Unfit
from agent.meters.rapl.pyraplcounters import open_pyrapl
from agent.meters.rapl.zones import choose, find_zones

zones = choose(find_zones(Path("/sys")).zones, json.loads(sys.argv[1]))
found = {"powercap": open_powercap(zones).read()}
try:
    counters = open_pyrapl(zones, Path("/sys"))
    found["before"] = counters.read()
    Path("/sys/class/powercap/intel-rapl/intel-rapl:0/energy_uj").write_text(sys.argv[2])
    found["pyrapl"] = counters.read()
except (NotReadable, Unfit) as error:
    found["problem"] = f"{type(error).__name__}: {error}"
found["log handlers"] = len(logging.getLogger().handlers)
print(json.dumps(found))
"""


@pytest.fixture
def in_place() -> Callable[..., dict[str, Any]]:
    """Runs both ways over a tree in the place of ``/sys``; skips, saying why, where that cannot be done."""
    if importlib.util.find_spec("pyRAPL") is None:
        pytest.skip("pyRAPL is not installed: its readings are compared with nothing")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("not root, or no mount namespaces: pyRAPL's fixed path cannot be emulated")

    def run(root: Path, wanted: list[str] | None = None, later: str = "77\n") -> dict[str, Any]:
        mount = 'mount --bind "$0" /sys && exec "$@"'
        python = [sys.executable, "-I", "-c", BOTH_WAYS, json.dumps(wanted), later]
        command = ["unshare", "--mount", "sh", "-c", mount, str(root), *python]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stderr) == (0, "")
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return run


@pytest.mark.parametrize(
    "layout",
    [{}, {"packages": 2}, {"packages": 3, "dram_share": 0.2}, {"vendor": "amd"}, {"psys": True, "mmio": True}],
    ids=["laptop", "two packages", "with dram", "amd", "psys and mmio"],
)
async def test_both_ways_read_the_same_counts(
    machine: Make, in_place: Callable[..., dict[str, Any]], layout: dict[str, object]
) -> None:
    server = machine(**layout)
    await server.run(1000.0)
    found = in_place(server.root)
    assert found["before"] == found["powercap"]
    assert found["pyrapl"] == [77, *found["powercap"][1:]]
    assert all(count > 0 for count in found["powercap"])


async def test_it_leaves_the_log_alone(machine: Make, in_place: Callable[..., dict[str, Any]]) -> None:
    assert in_place(machine().root)["log handlers"] == 0


@pytest.mark.parametrize("later", ["", "nonsense\n", "-1\n", "nan\n", "inf\n"])
async def test_garbage_is_no_count(machine: Make, in_place: Callable[..., dict[str, Any]], later: str) -> None:
    assert in_place(machine().root, later=later)["problem"] == "NotReadable: pyRAPL: energy_uj holds garbage"


@pytest.mark.parametrize(
    ("layout", "wanted", "problem"),
    [
        ({"dies": 2}, None, "pyRAPL cannot read package-0-die-0"),
        ({"psys": True}, ["psys"], "pyRAPL cannot read psys"),
        ({}, ["core"], "pyRAPL cannot read package-0/core"),
        ({"packages": 11}, None, "pyRAPL cannot read package-10"),
    ],
)
def test_what_it_cannot_read_is_refused(
    machine: Make, layout: dict[str, object], wanted: list[str] | None, problem: str
) -> None:
    server = machine(**layout)
    zones = choose(find_zones(server.root).zones, wanted)
    with pytest.raises(Unfit, match=problem):
        open_pyrapl(zones, Path("/sys"))


def test_it_reads_one_place_only(machine: Make) -> None:
    server = machine()
    with pytest.raises(Unfit, match="pyRAPL reads /sys alone"):
        open_pyrapl(choose(find_zones(server.root).zones, None), server.root)


def test_without_pyrapl_the_extra_is_named() -> None:
    if importlib.util.find_spec("pyRAPL") is not None:
        pytest.skip("pyRAPL is installed")
    with pytest.raises(Unfit, match=r"pip install 'wattloop\[rapl\]'"):
        load_pyrapl()
