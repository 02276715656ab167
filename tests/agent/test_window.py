import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from agent.report import ActuatorReport, MeterReport, NodeReport
from agent.window import Window, WindowShut, look
from hil.devices import Quality

REPORT = NodeReport(
    site="lab",
    node="jetson-1",
    mode="act",
    pid=1234,
    version="0.1.0",
    lease_state="controlled",
    broker="mqtt://127.0.0.1:1883",
    connected=True,
    own_meter="outlet",
    meters=(MeterReport("neighbour", 40.0, Quality.GOOD, 0.1), MeterReport("outlet", 7.4, Quality.GOOD, 0.2)),
    actuators=(ActuatorReport("board", "EmulatedActuator"),),
    books="12 generated",
)


def says(report: Callable[[], NodeReport]) -> Callable[[], Awaitable[NodeReport]]:
    async def say() -> NodeReport:
        return report()

    return say


async def test_whoever_looks_sees_the_report_of_that_moment(tmp_path: Path) -> None:
    reports = [REPORT]
    window = Window(tmp_path / "agent.sock", says(lambda: reports[-1]))
    await window.open()
    assert await asyncio.to_thread(look, tmp_path / "agent.sock") == REPORT
    reports.append(msgspec.structs.replace(REPORT, node="other"))
    seen = await asyncio.to_thread(look, tmp_path / "agent.sock")
    assert seen is not None
    assert seen.node == "other"
    await window.close()
    await window.close()
    assert look(tmp_path / "agent.sock") is None


def test_the_power_of_the_node_is_its_own_meters() -> None:
    assert REPORT.measured_w == 7.4


async def test_a_path_longer_than_socket_addresses_are(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    window = Window(folder / "agent.sock", says(lambda: REPORT))
    await window.open()
    assert await asyncio.to_thread(look, folder / "agent.sock") == REPORT
    await window.close()


async def test_a_window_left_by_an_earlier_life_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert look(path) is None
    window = Window(path, says(lambda: REPORT))
    await window.open()
    assert await asyncio.to_thread(look, path) == REPORT
    await window.close()


async def test_a_folder_that_takes_no_socket_costs_only_the_window(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    window = Window(tmp_path / "none" / "agent.sock", says(lambda: REPORT))
    await window.open()
    assert "no such file or directory; `wattloop-agent status` will not work" in caplog.text
    await window.close()


def test_no_folder_is_no_agent(tmp_path: Path) -> None:
    assert look(tmp_path / "none" / "agent.sock") is None


@pytest.mark.parametrize("said", [b"", b"rubbish", b'{"site": 1}'])
async def test_what_is_no_report_is_said(tmp_path: Path, said: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    path = tmp_path / "agent.sock"
    server = await asyncio.start_unix_server(answer, path)
    with pytest.raises(WindowShut, match="another version or just ending"):
        await asyncio.to_thread(look, path)
    server.close()
