from pathlib import Path
from typing import Any

import pytest

from agent.meters.replay import ReplayMeter, ReplayMeterConfig, Trace, load_trace
from hil.clock import ManualClock
from hil.devices import DeviceFailed, DeviceUnavailable
from hil.yamlfile import Document

TRACE = "t_s,power_w\n100,15\n110,7.5\n120,\n130,20\n"


def load(tmp_path: Path, text: str | bytes) -> tuple[Trace, list[str]]:
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    document: Document[Any] = Document(tmp_path / "agent.yaml")
    trace = load_trace(path, document)
    return trace, [str(fault).replace(f"{tmp_path}/", "") for fault in document.faults]


class Playing:
    """A replay of a trace, on a clock that is moved by hand."""

    def __init__(self, trace: Trace, **config: Any) -> None:
        self.clock = ManualClock()
        self.meter = ReplayMeter(ReplayMeterConfig(name="m", file="f", **config), trace, self.clock)

    async def after(self, seconds: float) -> float | None:
        await self.clock.advance(seconds)
        return (await self.meter.read()).power_w


async def test_a_value_holds_until_the_next(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, TRACE)[0])
    await play.meter.open()
    assert [await play.after(seconds) for seconds in (0, 9.9, 0.1, 9.9)] == [15.0, 15.0, 7.5, 7.5]


async def test_an_empty_value_is_a_gap(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, TRACE)[0])
    await play.meter.open()
    with pytest.raises(DeviceUnavailable, match="gap"):
        await play.after(25)
    assert await play.after(5) == 20.0


async def test_a_loop_starts_anew_after_the_last_value_has_held(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, TRACE)[0])
    await play.meter.open()
    assert await play.after(39.9) == 20.0
    assert await play.after(0.2) == 15.0
    assert await play.after(4000.0) == 15.0


async def test_without_a_loop_the_meter_ends_with_its_trace(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, TRACE)[0], loop=False)
    await play.meter.open()
    with pytest.raises(DeviceFailed, match="over after 40 s"):
        await play.after(40)


async def test_speed_shortens_the_trace(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, TRACE)[0], speed=10)
    await play.meter.open()
    assert await play.after(1.0) == 7.5


async def test_a_trace_of_one_row_is_a_constant(tmp_path: Path) -> None:
    play = Playing(load(tmp_path, "t_s,power_w\n5,3\n")[0])
    await play.meter.open()
    assert [await play.after(seconds) for seconds in (0, 0.5, 7.3)] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    "text",
    [
        "time,power_w\n2026-06-21T20:00:00Z,15\n2026-06-21T20:00:10Z,7\n",
        "time,power_w\n2026-06-21T20:00:00,15\n2026-06-21 20:00:10,7\n",
        "time,power_w\n2026-06-21T22:00:00+02:00,15\n2026-06-21T20:00:10Z,7\n",
        "note, time ,energy,power_w\nx,2026-06-21T20:00:00Z,1,15\r\n\r\ny,2026-06-21T20:00:10.000Z,2,7\r\n",
        b"\xef\xbb\xbft_s,power_w\n0,15\n10,7\n",
    ],
)
def test_stamps_zones_and_more_columns_are_understood(tmp_path: Path, text: str | bytes) -> None:
    trace, faults = load(tmp_path, text)
    assert faults == []
    assert (trace.times_s, trace.powers_w) == ((0.0, 10.0), (15.0, 7.0))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "t_s,power_w\n0,15\n1,lots\n",
            "trace.csv:3: power_w: lots: expected a finite number of W, or nothing for a gap",
        ),
        ("t_s,power_w\n0,nan\n", "trace.csv:2: power_w: nan: expected a finite number of W, or nothing for a gap"),
        ("t_s,power_w\n0,1e999\n", "trace.csv:2: power_w: 1e999: expected a finite number of W, or nothing for a gap"),
        ("t_s,power_w\nsoon,1\n", "trace.csv:2: t_s: soon: expected seconds"),
        ("t_s,power_w\ninf,1\n", "trace.csv:2: t_s: inf: expected seconds"),
        ("time,power_w\n21.6.,1\n", "trace.csv:2: time: 21.6.: expected a time such as 2026-06-21T20:00:00Z"),
        ("t_s,power_w\n5,1\n5,1\n", "trace.csv:3: t_s: 5: expected a later time than in the row before"),
        ("t_s,power_w\n,1\n", "trace.csv:2: t_s: empty: expected seconds"),
        ("t_s,watts\n0,1\n", "trace.csv:1: header: t_s,watts: expected a header with t_s or time, and power_w"),
        ("", "trace.csv:1: header: empty: expected a header with t_s or time, and power_w"),
        ("t_s,power_w\n", "trace.csv: rows: none: expected at least one row below the header"),
        (b"t_s,power_w\n0,\xff\n", "trace.csv: file: unreadable: "),
    ],
)
def test_a_fault_names_file_row_column_value_and_remedy(tmp_path: Path, text: str | bytes, fault: str) -> None:
    _, faults = load(tmp_path, text)
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_all_faults_are_told_at_once_up_to_a_limit(tmp_path: Path) -> None:
    _, faults = load(tmp_path, "t_s,power_w\n0,a\nb,1\n2,c\n")
    assert [fault.split(":")[1] for fault in faults] == ["2", "3", "4"]
    _, faults = load(tmp_path, "t_s,power_w\n" + "x,y\n" * 1000)
    assert len(faults) == 20


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    document: Document[Any] = Document(tmp_path / "agent.yaml")
    load_trace(tmp_path / "none.csv", document)
    assert "No such file" in str(document.faults[0])
