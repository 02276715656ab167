"""What users, networks and devices get wrong: a plain word each, and the run goes on."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hil.broker import free_port
from hil.clock import SystemClock
from hil.mqtt import BrokerConfig, MqttBus
from hil.rig import Rig, script
from hil.wire import Topics

if TYPE_CHECKING:
    from .conftest import Lab

pytestmark = pytest.mark.system

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SCENARIO = """\
name: lab
broker: {url: "mqtt://127.0.0.1:9"}
interval_s: 0.1
duration_s: 1
microgrids:
  - name: shed
    actors: [{kind: node, node: jetson-1, nameplate_w: 20}]
"""
AGENT = """\
site: lab
node: jetson-1
broker: {url: "mqtt://127.0.0.1:9"}
state_dir: state
meters: [{name: host, kind: cpu, idle_w: 1, max_w: 10}]
"""
FAULTY = {
    "scenario.yaml": (
        SCENARIO.replace("interval_s: 0.1", "interval_s: .nan")
        .replace("nameplate_w: 20", "nameplate: 20")
        .replace("duration_s", "speeed")
    ),
    "agent.yaml": (
        AGENT.replace("site: lab", "site: My Lab").replace("idle_w: 1", "idle_w: one").replace("state_dir", "dir")
    ),
    "world.yaml": "nodes: [{name: a, load: {kind: constant}}]\ncontrol: {port: 70000}\n",
}
CALLS = {
    "coordinator run": ("wattloop-coordinator", "run", "scenario.yaml"),
    "coordinator check": ("wattloop-coordinator", "check", "scenario.yaml"),
    "agent run": ("wattloop-agent", "run", "--config", "agent.yaml"),
    "agent check": ("wattloop-agent", "check", "--config", "agent.yaml"),
    "emulate": ("wattloop-hil", "emulate", "world.yaml"),
    "demo": ("wattloop-hil", "demo", "--scenario", "scenario.yaml", "--run-dir", "run"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_faulty_file_is_told_a_line_a_fault(call: str, tmp_path: Path, command: Command) -> None:
    for name, text in FAULTY.items():
        (tmp_path / name).write_text(text)
    result = command(*CALLS[call], cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) >= 2, result.stderr
    for line in lines:  # file:line: key: value: expected
        place, key, value, expected = line.split(": ", 3)
        assert place.rpartition(":")[0] in FAULTY
        assert all((key, value, expected))


@pytest.mark.parametrize("call", CALLS)
def test_a_file_that_is_no_yaml_or_no_text(call: str, tmp_path: Path, command: Command) -> None:
    for content in (b"a: [1, 2\nb: }", b"\xff\xfe\x00", b"- just\n- a list\n"):
        for name in FAULTY:
            (tmp_path / name).write_bytes(content)
        result = command(*CALLS[call], cwd=tmp_path)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--run-dir", "/proc/run"), "/proc/run/ledger.db: cannot make its folder: No such file or directory"),
        (("--run-dir", "scenario.yaml"), "scenario.yaml/ledger.db: cannot make its folder: File exists"),
        (("--run-dir", "taken"), "taken/ledger.db: not a ledger, or a damaged one: file is not a database"),
        (("--state-dir", "/proc/x"), "/proc/x: No such file or directory; choose another folder with --state-dir"),
    ],
)
def test_a_folder_that_cannot_be_used(options: tuple[str, str], why: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "ledger.db").write_text("not a ledger")
    usual = {"--run-dir": "run", "--state-dir": "state"} | dict([options])
    result = command(
        "wattloop-coordinator", "run", "scenario.yaml", *[word for pair in usual.items() for word in pair], cwd=tmp_path
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"wattloop-coordinator run: {why}\n"


def test_an_agent_s_state_directory_that_cannot_be_used(tmp_path: Path, command: Command) -> None:
    (tmp_path / "agent.yaml").write_text(AGENT.replace("state_dir: state", "state_dir: /proc/state"))
    result = command("wattloop-agent", "run", "--config", "agent.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    why = "/proc/state: No such file or directory; name a folder that can be written in state_dir"
    assert result.stderr == f"wattloop-agent run: {why}\n"


def test_a_run_of_another_scenario_is_not_gone_on_with(tmp_path: Path, command: Command, broker_url: str) -> None:
    fan = "kind: constant, name: fan, role: load, power_w: 5"
    text = SCENARIO.replace("kind: node, node: jetson-1, nameplate_w: 20", fan)
    go = (
        "wattloop-coordinator",
        "run",
        "scenario.yaml",
        "--run-dir",
        "run",
        "--state-dir",
        "state",
        "--mqtt",
        broker_url,
    )
    (tmp_path / "scenario.yaml").write_text(text)
    first = command(*go, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (tmp_path / "scenario.yaml").write_text(text.replace("power_w: 5", "power_w: 6"))
    second = command(*go, cwd=tmp_path)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("wattloop-coordinator run: run holds a run of another scenario")
    replayed = command("wattloop-coordinator", "replay", "run", cwd=tmp_path)
    assert replayed.returncode == 1
    assert "has changed since the run" in replayed.stderr


# --- a broker that refuses --------------------------------------------------------------------------------------------


@contextmanager
def guarded(folder: Path, mosquitto: str) -> Iterator[str]:
    """The URL of a mosquitto that lets nobody in without a password."""
    port = free_port()
    (folder / "passwords").write_text("")
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder / 'passwords'}\nuser root\n"
    )
    process = subprocess.Popen([mosquitto, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_a_broker_that_refuses_the_login_is_named_and_tried_again(tmp_path: Path, mosquitto: str) -> None:
    (tmp_path / "password").write_text("guess\n")
    (tmp_path / "password").chmod(0o600)
    with guarded(tmp_path, mosquitto) as url:
        login = f'{{url: "{url}", username: eve, password_file: password}}'
        for name, text in {"agent.yaml": AGENT, "scenario.yaml": SCENARIO}.items():
            (tmp_path / name).write_text(text.replace('{url: "mqtt://127.0.0.1:9"}', login))
        run = ["run", tmp_path / "scenario.yaml", "--run-dir", tmp_path / "run", "--state-dir", tmp_path / "lab"]
        async with Rig(tmp_path / "logs") as rig:
            agent = await rig.start("agent", [script("wattloop-agent"), "run", "--config", tmp_path / "agent.yaml"])
            coordinator = await rig.start("coordinator", [script("wattloop-coordinator"), *run])
            nodes = await rig.start("nodes", [script("wattloop-coordinator"), "nodes", "--mqtt", url])
            assert await asyncio.wait_for(nodes.process.wait(), 30.0) == 1
            assert agent.running
            assert coordinator.running
            assert await rig.end(agent, 10.0) == 0
            for part in (agent, coordinator):
                [told] = [line for line in part.log.read_text().splitlines() if "refused" in line]
                assert "login of user eve" in told
                assert told.endswith("will keep trying")
            assert "login without a user name" in nodes.log.read_text()
            assert not any("Traceback" in part.log.read_text() for part in (agent, coordinator, nodes))


# --- messages that nobody should send ---------------------------------------------------------------------------------

TOPICS = Topics("lab")
NODE = TOPICS.node("jetson-1")
DATA = {"stream": "0badcafe", "r": [[1, 1_750_000_000_000_000, "outlet", 99.0, None, 0, "good"]]}
BIRTH = {
    "node": "jetson-1",
    "version": "1",
    "boot_id": "b",
    "stream": "0badcafe",
    "epoch": 0,
    "mode": "act",
    "nameplate_w": 1.0,
    "failsafe": "release",
    "sync": "tick",
    "clock_synchronised": True,
}
COMMAND = {
    "id": "00000000-0000",
    "issuer": "lab",
    "epoch": 1,
    "seq": 1_000_000,
    "target": {"node": "jetson-1", "actuator": "board"},
    "action": "limit",
    "limit_w": 5.0,
    "issued_at": "2026-06-21T20:00:00Z",
    "ttl_s": 60,
}


def said(message: dict[str, object], **changes: object) -> bytes:
    return json.dumps(message | changes).encode()


NONSENSE: list[tuple[str, bytes]] = [
    (NODE.data, b"x" * 70_000),
    (NODE.data, b"\x00\xff\xfe"),
    (NODE.data, b""),
    (NODE.data, b"[" * 5_000),
    (NODE.data, b'{"stream": "0badcafe", "r": [[1, 1, "outlet", NaN, null, 0, "good"]]}'),
    (NODE.data, b'{"stream": "0badcafe", "stream": "0badcaff", "r": []}'),
    (NODE.data, said(DATA, r=[[0, 1, "outlet", 1.0, None, 0, "good"]])),
    (NODE.data, said(DATA, r=[[1, 1, "outlet", 1e300, None, 0, "good"]])),
    (NODE.data, said(DATA, r=[[1, 1, "outlet", 1.0, None, 0, "splendid"]])),
    (NODE.data, said(DATA, r=DATA["r"] * 101)),
    (NODE.birth, said(BIRTH, node="jetson-2")),
    (NODE.birth, b"{}"),
    (NODE.state, b"[]"),
    (NODE.cmd_ack, b'{"id": "none"}'),
    (NODE.cmd_ack, b"{"),
    (NODE.cmd, b"\xff" * 100),
    (NODE.cmd, said(COMMAND, limit_w=-1.0)),
    (NODE.cmd, said(COMMAND, target={"node": "jetson-2", "actuator": "board"})),
    (NODE.cmd, b'{"v": 1e999}'),
    (NODE.data_ack, b'{"stream": 7}'),
    (NODE.data_ack, b'{"stream": "0badcafe", "upto": 9007199254740991}'),
    (TOPICS.node("stranger").data, said(DATA)),
    (TOPICS.node("stranger").birth, said(BIRTH, node="stranger")),
    (TOPICS.node("NOT-A-NAME").state, b"{}"),
    (TOPICS.coordinator_state, b"nobody"),
    (TOPICS.heartbeat, b'{"epoch": -1}'),
    (TOPICS.signal("weather"), b"sunny"),
    (TOPICS.signal("../../etc"), b"sunny"),
]


@asynccontextmanager
async def stranger(url: str) -> AsyncIterator[MqttBus]:
    """Somebody else on the same broker."""
    bus = MqttBus(BrokerConfig(url=url), "stranger", SystemClock())
    await bus.start()
    await bus.wait_connected()
    yield bus
    await bus.stop()


async def test_messages_that_make_no_sense_are_told_once_and_change_nothing(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=None)
    coordinator = await lab.start("--duration", "5", "--drain", "30")
    await lab.until(lambda: len(lab.run.measured_w(5)) == 5)
    async with stranger(lab.broker.url) as bus:
        for _ in range(20):
            for topic, payload in NONSENSE:
                assert bus.publish(topic, payload)
            await asyncio.sleep(0.05)
    assert coordinator.running
    assert lab.agents["jetson-1"].running
    summary = await lab.finish(coordinator, 50)
    assert all(abs(step.power_w - 15.0) <= 1.0 for step in lab.run.steps())
    assert await lab.cap_w() is None
    samples = summary["microgrids"][0]["samples"]
    assert samples["committed"] == samples["generated"] == lab.run.samples()[0]
    assert lab.run.rows("SELECT name FROM node") == [("jetson-1",)]
    told = coordinator.log.read_text()
    for code in ("too_large", "too_deep", "malformed", "unknown_node"):
        assert told.count(f"refused: {code}") >= 1, told
    assert told.count("\n") < 30  # of 560 messages


# --- meters that lie or fall silent -----------------------------------------------------------------------------------


async def test_a_unit_that_fails_is_missing_and_never_zero(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=None)
    await lab.start()
    for count, fault in enumerate(("silent", "exception", "nan"), 1):
        known = len(lab.run.steps())
        await lab.until(lambda known=known: len(lab.run.measured_w(5)) == 5 and len(lab.run.steps()) > known)
        assert lab.run.steps()[-1].quality == "good"
        await lab.say(op="fault", pdu="pdu-1", fault=fault)
        await lab.until(lambda: lab.run.steps()[-1].source == "nameplate")
        await lab.say(op="fault", pdu="pdu-1", fault=None)
        await lab.until(lambda: lab.run.steps()[-1].source == "measured")
        told = lab.agents["jetson-1"].log.read_text()
        assert told.count("meter outlet: works again") >= count, told
    assert {power_w for (power_w,) in lab.run.rows("SELECT power_w FROM samples WHERE quality = 'missing'")} == {None}
    assert min(step.power_w for step in lab.run.steps()) > 14.0
    assert len(lab.agents["jetson-1"].log.read_text().splitlines()) < 30


async def test_a_reading_a_hair_below_zero_is_survived(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=None)
    coordinator = await lab.start()
    await lab.until(lambda: len(lab.run.measured_w(5)) == 5)
    await lab.say(op="override", pdu="pdu-1", outlet=1, quantity="power_w", value=-0.01)
    known = len(lab.run.steps())
    await lab.until(lambda: len(lab.run.steps()) > known + 10)
    assert coordinator.running
    assert lab.run.measured_w(3) == pytest.approx([-0.01] * 3)
    assert coordinator.log.read_text().count("a sample of meter outlet is below 0 W") == 1
