"""``wattloop-hil demo`` as people run it: to its end, stopped at any moment, killed, and asked for nonsense."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from hil.broker import EmbeddedBroker, find_mosquitto

if TYPE_CHECKING:
    from .conftest import Watch

pytestmark = pytest.mark.system

DEMO = [Path(sys.executable).with_name("wattloop-hil"), "demo"]
STOP_S = 3.0
PROMISED = {
    "run_dir": None,
    "steps": None,
    "simulated_s": None,
    "wall_s": None,
    "nodes": None,
    "samples": {"generated", "committed", "lost", "duplicates"},
    "commands": {"sent", "applied", "verified", "rejected", "failed", "renewals"},
    "command_latency_ms": {"p50", "p99"},
    "step_lateness_ms": {"p50", "p99", "max"},
    "energy_wh": {"produced", "consumed", "import", "export", "charged", "discharged", "unserved", "curtailed"},
    "balance_residual": None,
    "final_soc": None,
    "emissions_g": None,
    "events": None,
}
SHORT = """\
name: short
start: 2026-06-21T12:00:00Z
interval_s: 60
speed: 600
duration_s: 4200
microgrids:
  - name: shed
    actors:
      - {kind: node, node: jetson-9, nameplate_w: 20}
      - {kind: constant, name: panel, role: producer, power_w: 10}
    storage: {kind: lossless, capacity_wh: 100, soc: 0.5}
controllers:
  - microgrid: shed
    rules:
      - name: noon
        when: {time: {from: "12:20", to: "23:00"}}
        then: [{do: limit, node: jetson-9, limit_w: 7.5}]
"""


@pytest.fixture
def start(watch: "Watch") -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """``start(*options, cwd=…)``: a demonstration in a process group of its own, as a shell starts one."""
    started = []

    def go(*options: str | Path, **how: Any) -> "subprocess.Popen[str]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*DEMO, *options], env=watch.environment, process_group=0, **(pipes | how))
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Shown:
    """A demonstration that came to its end."""

    summary: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Two at once: one as it comes, in a path with spaces; one with a scenario and a broker of the user's, amqtt."""
    folder = tmp_path_factory.mktemp("a path with spaces")
    (folder / "short.yaml").write_text(SHORT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    with EmbeddedBroker(folder / "broker", prefer="amqtt") as broker:
        options = {
            "as it comes": ["--duration", "8"],
            "of the user's own": ["--scenario", "short.yaml", "--mqtt", broker.url, "--run-dir", "my run"],
        }
        both = {name: subprocess.Popen([*DEMO, *each, "--json"], **pipes) for name, each in options.items()}
        ends = {name: (process.communicate(timeout=60), process.returncode) for name, process in both.items()}
    assert {name: status for name, (_, status) in ends.items()} == dict.fromkeys(options, 0), ends
    return {name: Shown(json.loads(out.splitlines()[-1]), err) for name, ((out, err), _) in ends.items()}


@pytest.fixture(params=["as it comes", "of the user's own"])
def shown(two: dict[str, Shown], request: pytest.FixtureRequest) -> Shown:
    return two[request.param]


def test_the_last_line_has_everything_that_is_promised(shown: Shown) -> None:
    assert shown.summary.keys() >= PROMISED.keys()
    for key, inside in PROMISED.items():
        if inside is not None:
            assert shown.summary[key].keys() >= inside, key
    for event in shown.summary["events"]:
        assert event.keys() == {"at", "kind", "detail"}


def test_no_sample_is_lost_and_every_step_balances(shown: Shown) -> None:
    samples = shown.summary["samples"]
    assert samples["generated"] == samples["committed"] > 100
    assert (samples["lost"], samples["duplicates"]) == (0, 0)
    assert shown.summary["balance_residual"] <= 1e-9


def test_the_run_can_be_replayed(shown: Shown, command: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    result = command("wattloop-coordinator", "replay", Path(shown.summary["run_dir"]) / "run")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("identical, byte for byte\n")


def test_it_takes_as_long_as_it_was_told(two: dict[str, Shown]) -> None:
    assert two["as it comes"].summary["simulated_s"] == pytest.approx(8 * 750, rel=0.02)
    assert two["of the user's own"].summary["simulated_s"] == pytest.approx(4200, rel=0.02)


def test_runs_are_kept_where_they_should_be(two: dict[str, Shown]) -> None:
    mine, default = (Path(two[name].summary["run_dir"]) for name in ("of the user's own", "as it comes"))
    assert mine.name == "my run"
    assert default.parent == mine.parent / "runs"
    assert default.name.endswith("-demo")


def test_a_scenario_of_the_user_s_own_closes_the_loop_too(two: dict[str, Shown]) -> None:
    summary = two["of the user's own"].summary
    assert summary["nodes"] == ["jetson-9"]
    assert [(event["at"], event["kind"]) for event in summary["events"] if event["kind"] == "limit"] == [
        ("2026-06-21T12:20:00Z", "limit")
    ]
    commands = summary["commands"]
    assert (commands["sent"], commands["applied"], commands["verified"], commands["failed"]) == (2, 2, 1, 0)
    assert summary["command_latency_ms"]["p50"] > 0


def test_what_it_says_is_free_of_tracebacks(shown: Shown) -> None:
    assert "the day is over" in shown.said
    logs = Path(shown.summary["run_dir"]) / "logs"
    assert "Traceback" not in shown.said + "".join(path.read_text() for path in logs.iterdir())


def hidden(path: str | None) -> list[str]:
    """The start of a command that runs the rest where ``path`` cannot be executed."""
    if path is None:
        return []
    hide = f'mount --bind /dev/null "{path}" && exec "$@"'
    wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
        refuse = pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip
        refuse("mosquitto is installed and cannot be hidden: mount namespaces are not allowed here")
    return wrapper


def test_without_mosquitto_the_python_broker_takes_its_place(tmp_path: Path) -> None:
    command = [*hidden(find_mosquitto()), *DEMO, "--duration", "2", "--json", "--run-dir", tmp_path / "run"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("broker: amqtt at mqtt://127.0.0.1:")
    samples = json.loads(result.stdout.splitlines()[-1])["samples"]
    assert samples["committed"] == samples["generated"] > 20


# --- stopped ----------------------------------------------------------------------------------------------------------


def wait_for_line(process: "subprocess.Popen[str]", start_of_line: str) -> None:
    """Return once the process has said so, on stderr."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(start_of_line):
            return
    pytest.fail("".join(said))


@contextmanager
def stopping(process: "subprocess.Popen[str]", watch: "Watch", *, again: bool = False) -> Iterator[None]:
    """The process ends within 3 s of what is done inside, with a plain word, and leaves no process."""
    began = time.monotonic()
    yield
    _, said = process.communicate(timeout=30)
    took_s = time.monotonic() - began
    left = watch.alive()
    assert took_s < STOP_S
    assert left == []
    assert process.returncode == 130 or again, said
    assert said.splitlines()[-1].startswith("stopped; what was recorded is in ")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "phase",
    [
        "broker: ",
        "starting the emulated nodes",
        "starting the agent of jetson-1",
        "starting the agent of this-machine",
        "starting the coordinator",
        "running",
        "the day is over",
    ],
)
def test_ctrl_c_stops_everything(
    phase: str, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], watch: "Watch"
) -> None:
    process = start("--json", "--duration", "1", "--run-dir", tmp_path / "run")
    wait_for_line(process, phase)
    with stopping(process, watch):
        os.killpg(process.pid, signal.SIGINT)
    assert (tmp_path / "run" / "logs").is_dir()


def test_ctrl_c_while_the_scenario_is_being_checked(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], watch: "Watch"
) -> None:
    process = start("--json", "--run-dir", tmp_path / "run")
    while not (tmp_path / "run" / "logs").exists():
        assert process.poll() is None
        time.sleep(0.005)
    with stopping(process, watch):
        os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_impatience_changes_nothing(
    number: signal.Signals, tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], watch: "Watch"
) -> None:
    process = start("--json", "--run-dir", tmp_path / "run")
    wait_for_line(process, "starting the coordinator")
    with stopping(process, watch, again=True):  # the last one may come when all is done, and kill an empty shell
        for _ in range(5):
            process.send_signal(number)
            time.sleep(0.05)


def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(tmp_path: Path, watch: "Watch") -> None:
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", "--wait", *DEMO, "--run-dir", tmp_path / "run"]
    environment = watch.environment | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = b""
    try:
        while b"jetson-1 -1" not in screen:  # a first step is shown
            screen += os.read(ours, 65536)
        began = time.monotonic()
        os.write(ours, b"\x03")
        with suppress(OSError):  # what a terminal says when the last program has left
            while True:
                screen += os.read(ours, 65536)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - began < STOP_S
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert screen.rindex(b"\x1b[?25h") > screen.rindex(b"\x1b[?25l")  # the cursor is back
    assert b"stopped; what was recorded is in " in screen
    assert b"Traceback" not in screen
    assert watch.alive() == []


def test_when_it_is_killed_its_parts_die_too(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], watch: "Watch"
) -> None:
    process = start("--json", "--run-dir", tmp_path / "run")
    wait_for_line(process, "running")
    assert len(watch.alive()) == 6  # itself, broker, emulated nodes, two agents, coordinator
    process.kill()
    process.wait()
    assert watch.none_left(within_s=STOP_S), watch.alive()


def test_a_part_that_dies_ends_it_with_that_part_s_name(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = start("--json", "--run-dir", tmp_path / "run")
    wait_for_line(process, "running")
    ready = json.loads((tmp_path / "run" / "emulated.ready.json").read_text())
    psutil.Process(ready["pid"]).kill()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "wattloop-hil demo: emulated ended with status -9" in err
    assert "Traceback" not in err


# --- nonsense ---------------------------------------------------------------------------------------------------------


def refusal(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, err = process.communicate(timeout=30)
    assert out == ""
    return process.returncode, err


def test_a_run_directory_that_is_not_empty_or_cannot_be(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not touch")
    (tmp_path / "runs").write_text("a file, where a folder should be")
    full = start("--run-dir", tmp_path / "full")
    below = start("--run-dir", tmp_path / "full" / "thesis.txt" / "run")
    nowhere = start("--run-dir", "/proc/run")
    taken = start(cwd=tmp_path)
    choose = "choose another folder with --run-dir\n"
    assert refusal(full) == (
        1,
        f"wattloop-hil demo: {tmp_path / 'full'} is not empty; choose a new folder with --run-dir\n",
    )
    assert refusal(below) == (
        1,
        f"wattloop-hil demo: {tmp_path / 'full' / 'thesis.txt' / 'run'}: Not a directory; {choose}",
    )
    assert refusal(nowhere) == (1, f"wattloop-hil demo: /proc/run: No such file or directory; {choose}")
    status, said = refusal(taken)
    assert (status, said.count("\n"), said.endswith(f"-demo: Not a directory; {choose}")) == (1, 1, True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_scenario_with_faults_is_told_with_all_of_them(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    wrong = SHORT
    for right, mistake in {"nameplate_w: 20": "nameplate_w: -20", "storage:": "battery:", "12:20": "25:20"}.items():
        wrong = wrong.replace(right, mistake)
    (tmp_path / "wrong.yaml").write_text(wrong)
    status, said = refusal(start("--scenario", "wrong.yaml", "--run-dir", "run", cwd=tmp_path))
    assert status == 2
    assert [line.split(": ")[0:2] for line in said.splitlines()] == [
        ["wrong.yaml:9", "microgrids[0].actors[0].nameplate_w"],
        ["wrong.yaml:11", "microgrids[0].battery"],
        ["wrong.yaml:16", "controllers[0].rules[0].when.time.from"],
    ]
    assert not (tmp_path / "run").exists()


def test_a_scenario_that_is_not_there(tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> None:
    said = "none.yaml: file: unreadable: No such file or directory\n"
    assert refusal(start("--scenario", "none.yaml", cwd=tmp_path)) == (2, said)


def test_a_broker_that_is_none(tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> None:
    silent = start("--mqtt", "mqtt://127.0.0.1:9", cwd=tmp_path)
    nonsense = start("--mqtt", "127.0.0.1:1883", cwd=tmp_path)
    status, said = refusal(nonsense)
    assert status == 2
    assert said.splitlines()[-1].endswith("url 127.0.0.1:1883: expected mqtt://host[:port] or mqtts://host[:port]")
    _, said = silent.communicate(timeout=30)
    assert silent.returncode == 1
    assert said.splitlines()[-1] == "wattloop-hil demo: no answer from the broker at mqtt://127.0.0.1:9 within 5 s"
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--duration=0", "--duration=soon", "--speed=-1", "--speed=nan"])
def test_an_option_that_makes_no_sense(option: str, command: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    result = command("wattloop-hil", "demo", option)
    assert (result.returncode, result.stdout) == (2, "")
    assert "expected a" in result.stderr.splitlines()[-1]


def test_the_traces_of_a_scenario_are_found_beside_it(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    (tmp_path / "there").mkdir()
    shutil.copytree(Path(__file__).parents[2] / "scenarios", tmp_path / "there" / "scenarios")
    process = start(
        *("--scenario", "there/scenarios/paper-day.yaml", "--duration", "1", "--speed", "60", "--json"), cwd=tmp_path
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["steps"] == 1
