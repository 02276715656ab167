import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.cli import main
from agent.gate import Fence
from agent.leasestore import Answered, Change, LeaseStore
from agent.report import ActuatorReport, LeaseReport, MeterReport, NodeReport
from agent.window import Window
from hil.devices import Quality, WorkloadState
from hil.wire import Ack, AckState, Action, Effect

CONFIG = """
site: lab
node: jetson-1
state_dir: state
meters: [{name: host, kind: cpu, idle_w: 5, max_w: 20}]
"""
LEASE = LeaseReport("lab", Action.LIMIT, 4.0, 7.5, 7.4, None, None, Effect.VERIFIED, 41.2, "night-saving")
REPORT = NodeReport(
    site="lab",
    node="jetson-1",
    mode="act",
    pid=1234,
    version="0.1.0",
    lease_state="controlled",
    broker="mqtt://127.0.0.1:1883 (MQTT 5)",
    connected=True,
    own_meter="outlet",
    meters=(MeterReport("outlet", 7.4, Quality.GOOD, 0.24), MeterReport("dead", None, Quality.MISSING, 1.0)),
    actuators=(
        ActuatorReport(
            "board", "EmulatedActuator", "verified", 4.0, 7.5, source="lab", remaining_s=41.2, leases=(LEASE,)
        ),
        ActuatorReport(
            "job", "WorkloadActuator", "applied", workload=WorkloadState.PAUSED, note="paused", source="lab"
        ),
        ActuatorReport("gone", "EmulatedActuator"),
    ),
    books="12 samples: 12 acknowledged, 0 spooled, 0 lost",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
async def window(config: Path) -> AsyncIterator[Window]:
    (config.parent / "state").mkdir()

    async def say() -> NodeReport:
        return REPORT

    window = Window(config.parent / "state" / "agent.sock", say)
    await window.open()
    yield window
    await window.close()


@pytest.mark.usefixtures("window")
async def test_a_running_agent_tells_what_is_asked_applied_and_measured(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["status", "--config", str(config)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in said] == [
        "node jetson-1 of site lab: controlled, mode act, process 1234",
        "broker mqtt://127.0.0.1:1883 (MQTT 5): connected",
        "12 samples: 12 acknowledged, 0 spooled, 0 lost",
        "",
        "METER POWER QUALITY AGE",
        "outlet 7.40 W good 0.2 s",
        "dead - missing 1.0 s",
        "",
        "ACTUATOR REQUESTED APPLIED MEASURED STATE SOURCE REMAINING",
        "board 4.00 W 7.50 W 7.40 W verified lab 41 s",
        "job paused paused 7.40 W applied (paused) lab -",
        "gone - - 7.40 W unavailable - -",
        "",
        "LEASE ON BY ASKS FOR SHOWN BY METER REMAINING REASON",
        "board lab 4.00 W, gets 7.50 W verified, 7.40 W 41 s night-saving",
    ]


@pytest.mark.usefixtures("window")
async def test_as_json_it_is_one_object(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["status", "--json", "--config", str(config)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["actuators"][0]["leases"][0]["remaining_s"] == 41.2


def test_without_an_agent_and_without_a_past(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(config)]) == 1
    assert capsys.readouterr().out == "node jetson-1 of site lab: no agent runs\n"


@pytest.mark.parametrize("crashed", [True, False])
def test_a_dead_agent_leaves_word_of_what_it_changed(
    config: Path, capsys: pytest.CaptureFixture[str], crashed: bool
) -> None:
    (config.parent / "state").mkdir()
    path = config.parent / "state" / "lease.db"
    ack = Ack(id="c-000001", issuer="lab", epoch=1, seq=1, actuator="board", state=AckState.APPLIED, applied_w=7.5)

    async def live() -> LeaseStore:
        store = LeaseStore(path)
        await store.open()
        await store.write(Change((Answered(ack, refused=False),), ("lab", Fence(1, 1)), ("board", "{}")))
        if not crashed:
            await store.close()
        return store

    store = asyncio.run(live())
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    assert main(["status", "--config", str(config)]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "board: still as the last agent set it, 7.5 W for lab; `wattloop-agent restore` puts it back"
    ]
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    assert after == before
    asyncio.run(store.close())


def test_a_damaged_store_is_one_plain_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "state").mkdir()
    path = config.parent / "state" / "lease.db"
    path.write_bytes(b"no database" * 1000)
    assert main(["status", "--config", str(config)]) == 1
    assert capsys.readouterr().err == f"wattloop-agent status: {path}: file is not a database\n"
    assert path.read_bytes() == b"no database" * 1000
