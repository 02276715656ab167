"""The units as shipped, installed by the install commands and started by a real systemd.

``machine/boot.sh`` boots systemd in namespaces of its own, on a copy-on-write view of this machine's files, in about a
second. It needs root; without, these tests are skipped. There run mosquitto, an emulated Jetson behind a PDU, and both
services.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.install import SERVICE
from hil.broker import find_mosquitto
from hil.install.environment import is_hidden, service_python
from hil.install.service import DEFAULT_PREFIX
from hil.install.steps import InstallFailed

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).parent.parent.parent
HERE = Path(sys.executable).parent
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMD = Path("/lib/systemd/systemd")
FILES = Path(__file__).parent / "machine"
AGENT = (FILES / "agent.yaml").read_text()
STAND_IN = """
[Service]
ExecStart={command}
Restart=always
"""


def require(there: bool, what: str) -> None:
    """Skip the tests of this file for want of something; as root in CI, where all must be there, fail them."""
    if there:
        return
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"{what}, and in CI it must be")
    pytest.skip(what)


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine, seen from outside."""

    pid: int

    def run(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a command did, as root in the machine."""
        enter = ["nsenter", "--target", str(self.pid), *NAMESPACES, "--root", "--wd"]
        settings = [f"{name}={value}" for name, value in {"PATH": PATH, **environment}.items()]
        return subprocess.run([*enter, "env", "-i", *settings, *argv], capture_output=True, text=True, timeout=120)

    def do(self, *argv: str | Path) -> str:
        """The output of a command that must succeed."""
        result = self.run(*argv)
        assert result.returncode == 0, f"{argv}\n{result.stdout}{result.stderr}"
        return result.stdout

    def write(self, path: str, text: str) -> None:
        """Put a file into the machine."""
        self.do("mkdir", "-p", Path(path).parent)
        self.do("sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def until(self, what: str, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Return once a condition holds; the test fails, with the journal, when it does not come about."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:g} s: {what}\n{self.do('journalctl', '--no-pager', '--lines=60')}")
            time.sleep(0.1)

    def until_active(self, unit: str) -> None:
        """Return once a unit is ready."""
        self.until(f"{unit} active", lambda: self.show(unit, "ActiveState") == "active")

    def serve(self, unit: str, command: str) -> None:
        """Run a command as a service without any restriction."""
        self.write(f"/run/machine/{unit}", STAND_IN.format(command=command))
        self.do("systemctl", "daemon-reload")
        self.do("systemctl", "start", unit)

    def cap_w(self) -> float | None:
        """The cap of the emulated Jetson."""
        ask = 'exec 3<>/dev/tcp/127.0.0.1/5021; echo \'{"op":"get","node":"jetson-1"}\' >&3; head -n 1 <&3'
        cap: float | None = json.loads(self.do("bash", "-c", ask))["node"]["cap_w"]
        return cap


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Path]:
    """A control group of our own: two machines, or one and this one, must not meet in system.slice."""
    require(os.geteuid() == 0, "booting systemd in namespaces needs root")
    mounts = re.findall(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text(), re.MULTILINE)
    ours = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    require(bool(mounts) and ours is not None, "no unified control groups are mounted here")
    group = Path(mounts[0], ours[1] if ours else "", f"wattloop-test-{os.getpid()}")
    group.mkdir()
    yield group
    deadline = time.monotonic() + 10
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)  # the machine's processes are dying
    for path in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
        path.rmdir()


@pytest.fixture(scope="module")
def machine(cgroup: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with systemd and nothing else running."""
    for tool in ("unshare", "nsenter", "runuser"):
        require(shutil.which(tool) is not None, f"{tool} is not installed")
    require(SYSTEMD.exists() and shutil.which("systemctl") is not None, "systemd is not installed")
    require(find_mosquitto() is not None, "mosquitto is not installed")
    scratch = tmp_path_factory.mktemp("machine")
    enter = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', cgroup]
    unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child"]
    shown = sorted({ROOT, Path(sys.prefix), Path(sys.base_prefix)})
    boot = [*enter, *unshare, "sh", FILES / "boot.sh", scratch, *shown]
    with subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield booted(process)
        finally:
            process.kill()  # SIGTERM would wait for the machine; this takes it along
            process.wait()


def booted(process: subprocess.Popen[bytes]) -> Machine:
    """The machine once it is up."""
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        if inner := children.read_text().split():
            machine = Machine(int(inner[0]))
            if machine.run("systemctl", "is-system-running").stdout.strip() == "running":
                return machine
        time.sleep(0.05)
    process.kill()
    output = process.stdout.read().decode() if process.stdout else ""
    require(False, f"systemd did not boot in namespaces here: {output}")
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Installation:
    """What the install commands said."""

    without_packages: subprocess.CompletedProcess[str]
    agent: subprocess.CompletedProcess[str]
    coordinator: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def installation(machine: Machine) -> Installation:
    """Both services installed. The network being away, the dependencies are borrowed from our own environment."""
    first = install(machine, "wattloop-agent")
    machine.do("/opt/wattloop/bin/python", "-m", "pip", "uninstall", "--yes", "setuptools")  # older than the one pinned
    machine.do("mkdir", "/opt/borrowed")
    machine.do("mount", "--bind", sysconfig.get_path("purelib"), "/opt/borrowed")
    machine.write(f"/opt/wattloop/lib/{PYTHON}/site-packages/borrowed.pth", "/opt/borrowed\n")
    return Installation(first, install(machine, "wattloop-agent"), install(machine, "wattloop-coordinator"))


def install(machine: Machine, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What ``PROGRAM install`` did, with no package index to turn to."""
    return machine.run(HERE / program, "install", "--python", visible_python(), *options, PIP_NO_INDEX="1")


def visible_python() -> Path:
    """A Python of our own version, for the borrowed packages, and in a place that services see."""
    ours = Path(sys.base_prefix, "bin", PYTHON)
    python = Path("/usr/bin", PYTHON) if is_hidden(ours) else ours
    try:
        return service_python(python)
    except InstallFailed as error:
        require(False, str(error))
        raise


@pytest.fixture(scope="module")
def services(machine: Machine, installation: Installation) -> Machine:
    """The machine with broker, emulated Jetson, agent and coordinator at work."""
    assert installation.agent.returncode == 0, installation.agent.stderr
    assert installation.coordinator.returncode == 0, installation.coordinator.stderr
    machine.serve("broker.service", f"{find_mosquitto()} -p 1883")
    scenario = "/opt/wattloop/share/wattloop/scenarios/emulated-jetson.yaml"
    machine.serve("jetson.service", f"/opt/wattloop/bin/wattloop-hil emulate {scenario}")
    machine.write("/etc/wattloop/agent.yaml", AGENT)
    machine.write("/etc/wattloop/coordinator/lab.yaml", (FILES / "lab.yaml").read_text())
    for unit in ("wattloop-agent", "wattloop-coordinator@lab"):
        machine.do("systemctl", "enable", unit)
        machine.do("systemctl", "start", "--no-block", unit)
        machine.until_active(unit)
    return machine


def test_install_without_packages_fails_plainly_and_is_taken_up_again(installation: Installation) -> None:
    assert installation.without_packages.returncode == 1
    assert installation.without_packages.stderr.startswith("wattloop-agent install: `/opt/wattloop/bin/python")
    assert "Traceback" not in installation.without_packages.stderr
    assert installation.agent.returncode == 0, installation.agent.stderr
    assert "unchanged  /opt/wattloop" in installation.agent.stdout


def test_services_are_ready_under_a_watchdog_and_as_their_own_users(services: Machine) -> None:
    for unit, user in (("wattloop-agent", "wattloop-agent"), ("wattloop-coordinator@lab", "wattloop-coordinator")):
        services.until_active(unit)
        assert services.show(unit, "Type") == "notify"
        assert services.show(unit, "WatchdogUSec") in {"30s", "15s"}
        status = services.do("cat", f"/proc/{services.show(unit, 'MainPID')}/status")
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        uid = re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)
        assert uid is not None
        assert uid[1] == services.do("id", "-u", user).strip() != "0"


def test_loop_closes_under_the_directives(services: Machine) -> None:
    services.until("the Jetson capped at 7.5 W", lambda: services.cap_w() == 7.5)
    subscribe = ["mosquitto_sub", "-C", "1", "-W", "10", "-t", "wattloop/v1/lab/node/jetson-1/last/outlet"]

    services.until("7.5 W measured", lambda: 7.0 < json.loads(services.do(*subscribe))["power_w"] < 8.0)


def test_shipped_configuration_measures_this_machine(services: Machine) -> None:
    with configured(services, SERVICE.config.text(DEFAULT_PREFIX)):
        services.until_active("wattloop-agent")
        subscribe = ["mosquitto_sub", "-C", "1", "-W", "20", "-t", "wattloop/v1/lab/node/my-node/last/cpu"]
        assert 10 <= json.loads(services.do(*subscribe))["power_w"] <= 65


def test_killed_agent_leaves_no_cap_and_comes_back(services: Machine) -> None:
    with changed(services, "Restart=no"):
        services.until("the Jetson capped at 7.5 W", lambda: services.cap_w() == 7.5)
        services.do("systemctl", "kill", "--signal=KILL", "wattloop-agent")
        services.until("the agent failed", lambda: services.show("wattloop-agent", "ActiveState") == "failed")
        assert services.cap_w() is None
        assert "status=0" in services.show("wattloop-agent", "ExecStopPost")
    services.until("the Jetson capped again", lambda: services.cap_w() == 7.5)


def test_hanging_agent_is_replaced(services: Machine) -> None:
    with changed(services, "WatchdogSec=2s"):
        before = services.show("wattloop-agent", "MainPID")
        os.kill(outer_pid(services, int(before)), signal.SIGSTOP)
        services.until("another process", lambda: services.show("wattloop-agent", "MainPID") not in {before, "0"})
        services.until_active("wattloop-agent")
        assert "watchdog" in services.do("journalctl", "--unit=wattloop-agent", "--output=cat").lower()


def test_wrong_configuration_is_no_endless_restart(services: Machine) -> None:
    with configured(services, AGENT.replace("mode: act", "mode: obey")):
        services.until("the agent failed", lambda: services.show("wattloop-agent", "ActiveState") == "failed")
        assert services.show("wattloop-agent", "ExecMainStatus") == "2"
        assert "/etc/wattloop/agent.yaml" in services.do("journalctl", "--unit=wattloop-agent", "--output=cat")


@pytest.mark.parametrize("unit", ["wattloop-agent.service", "wattloop-coordinator@.service"])
def test_directives_close_what_they_say(services: Machine, unit: str) -> None:
    found = probe(services, unit, "/etc", "/opt/wattloop", "/var/lib", "/sys/fs/cgroup")
    user = unit.partition("@")[0].removesuffix(".service")
    assert found.pop("user") == services.do("id", "-u", user).strip()
    assert found.pop("memory") == "Operation not permitted"
    assert found.pop("netlink") == "Address family not supported by protocol"
    assert found.pop("home") != "done"
    assert found.pop("state") == "done"
    assert set(found.values()) <= {"Read-only file system", "Permission denied"}, found


def test_removal_takes_the_service_and_leaves_what_is_the_users(services: Machine) -> None:
    result = install(services, "wattloop-agent", "--uninstall")
    assert result.returncode == 0, result.stderr
    assert "wattloop-coordinator@.service" in result.stdout, "it should say for whom the environment stays"
    assert services.cap_w() is None
    assert services.show("wattloop-agent", "LoadState") == "not-found"
    assert install(services, "wattloop-agent", "--uninstall").returncode == 0, "once more should do no harm"
    for path in ("/etc/wattloop/agent.yaml", "/var/lib/wattloop-agent", "/opt/wattloop/bin/wattloop-agent"):
        services.do("test", "-e", path)
    assert install(services, "wattloop-agent").returncode == 0
    services.do("systemctl", "enable", "--now", "wattloop-agent")


@contextmanager
def changed(machine: Machine, line: str) -> Iterator[None]:
    """The agent running with one directive changed, and afterwards as shipped."""
    path = "/etc/systemd/system/wattloop-agent.service.d/test.conf"
    machine.write(path, f"[Service]\n{line}\n")
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "restart", "wattloop-agent")
    try:
        yield
    finally:
        machine.do("rm", path)
        machine.do("systemctl", "daemon-reload")
        machine.do("systemctl", "restart", "wattloop-agent")


@contextmanager
def configured(machine: Machine, text: str) -> Iterator[None]:
    """The agent started with another configuration, and afterwards with its own."""
    machine.write("/etc/wattloop/agent.yaml", text)
    machine.do("systemctl", "restart", "--no-block", "wattloop-agent")
    try:
        yield
    finally:
        machine.write("/etc/wattloop/agent.yaml", AGENT)
        machine.do("systemctl", "restart", "wattloop-agent")


def outer_pid(machine: Machine, pid: int) -> int:
    """Our number for a process of the machine."""
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            numbers = re.search(r"^NSpid:\t(.*)$", path.read_text(), re.MULTILINE)
            same = path.parent.joinpath("ns/pid").readlink() == Path(f"/proc/{machine.pid}/ns/pid").readlink()
        except OSError:  # it has just ended
            continue
        if same and numbers and numbers[1].split()[-1] == str(pid):
            return int(path.parent.name)
    pytest.fail(f"no process {pid} in the machine")


def probe(machine: Machine, unit: str, *paths: str) -> dict[str, str]:
    """What a process can do that runs under a unit's directives, but for those that make it a lasting service."""
    text = machine.do("cat", f"/etc/systemd/system/{unit}")
    text = re.sub(r"^(Type|NotifyAccess|Exec\w+|Restart\w*|WatchdogSec)=.*\n", "", text, flags=re.MULTILINE)
    state = re.search(r"^StateDirectory=(.*)$", text, re.MULTILINE)
    assert state is not None
    place = "/var/lib/" + state[1].replace("%i", "probe")
    machine.write("/opt/probe.py", (FILES / "probe.py").read_text())
    command = f"/opt/wattloop/bin/python /opt/probe.py {' '.join(paths)} {place}"
    stand_in = f"[Service]\nType=oneshot\nExecStart={command}\nStandardOutput=truncate:/run/probe.json\n"
    name = unit.replace("wattloop", "probe")
    machine.write(f"/run/machine/{name}", text.partition("[Install]")[0] + stand_in)
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "start", name.replace("@", "@probe"))
    found: dict[str, str] = json.loads(machine.do("cat", "/run/probe.json"))
    found["state"] = found.pop(place)
    return found
