"""A private MQTT broker for demos and tests: mosquitto where there is one, amqtt where not.

It listens on a loopback port of its own, lets anyone on this machine in, keeps nothing, and dies with the process that
started it. For a lab, run a broker with TLS and access control, and give its URL instead.

mosquitto.conf(5): https://mosquitto.org/man/mosquitto-conf-5.html
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import psutil

from hil.tether import tethered

LOOPBACK: Final = "127.0.0.1"
READY_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.01
PORT_ATTEMPTS: Final = 5
PORT_RANGE: Final = (20_000, 32_000)
PORT_DRAWS: Final = 100

MOSQUITTO_CONF: Final = """\
listener {port} {host}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_packet_size 131072
max_queued_messages 100000
max_queued_bytes 0
sys_interval 0
log_dest stderr
log_type error
log_type warning
log_type notice
"""

Kind = Literal["mosquitto", "amqtt"]
Preference = Literal["auto", "mosquitto", "amqtt"]

log = logging.getLogger(__name__)


class BrokerUnavailable(Exception):
    """No broker could be started; one plain line says why and what to install."""


class EmbeddedBroker:
    """A broker process; ``url`` and ``kind`` are set once started.

    Its configuration and log lie in ``directory``; mosquitto is looked for in ``search``. A broker that was stopped or
    killed starts again on the same port, so that its clients find it. Start it from the main thread: it ends with the
    thread that started it.
    """

    def __init__(self, directory: Path, prefer: Preference = "auto", *, search: Sequence[str] | None = None) -> None:
        self.url = ""
        self.kind: Kind | None = None
        self._directory = directory
        self._prefer = prefer
        self._search = usual_directories() if search is None else search
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        """Where the broker's own words go."""
        return self._directory / "broker.log"

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Return once the broker takes connections. Raises BrokerUnavailable."""
        for kind, port in self._attempts():
            self._spawn(kind, port)
            if self._await_ready(port):
                self._started(kind, port)
                return
            self.kill()
        raise BrokerUnavailable(self._why())

    def stop(self) -> None:
        """End the broker; harmless when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the broker as a crash does: no goodbye to any client."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        for kind, port in self._attempts():
            self._spawn(kind, port)  # here and not in a worker thread, with which the broker would end
            if await asyncio.to_thread(self._await_ready, port):
                self._started(kind, port)
                return self
            self.kill()
        raise BrokerUnavailable(self._why())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _attempts(self) -> Iterator[tuple[Kind, int]]:
        """What to try in turn; a port that was free when looked at may be taken when the broker gets to it."""
        kinds = [self.kind] if self.kind is not None else self._kinds()
        for kind in kinds:
            for _ in range(PORT_ATTEMPTS):
                yield kind, self._port or free_port()
            if kind != kinds[-1]:
                log.warning("%s; trying %s", self._why(), kinds[-1])

    def _kinds(self) -> list[Kind]:
        there: list[Kind] = []
        if self._prefer != "amqtt" and find_mosquitto(self._search) is not None:
            there.append("mosquitto")
        if self._prefer != "mosquitto" and importlib.util.find_spec("amqtt") is not None:
            there.append("amqtt")
        return there

    def _spawn(self, kind: Kind, port: int) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            command = self._mosquitto_command(port) if kind == "mosquitto" else _amqtt_command(port)
            with self.log_file.open("ab") as log_file:
                self._process = subprocess.Popen(
                    tethered(command, kill=True),
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # Ctrl-C ends the clients first, and they want to say goodbye
                )
        except OSError as error:
            raise BrokerUnavailable(f"the broker's directory {self._directory}: {error.strerror}") from error

    def _mosquitto_command(self, port: int) -> list[str]:
        config = MOSQUITTO_CONF.format(port=port, host=LOOPBACK)
        if os.geteuid() == 0:
            config += "user root\n"  # a process that changes its user loses the tether to its parent
        config_file = self._directory / "mosquitto.conf"
        config_file.write_text(config, encoding="utf-8")
        return [find_mosquitto(self._search) or "mosquitto", "-c", str(config_file)]

    def _await_ready(self, port: int) -> bool:
        """Whether our own process, and no stranger, came to listen on the port."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if _listens(self._process.pid, port):
                return True
            time.sleep(POLL_S)
        return False

    def _started(self, kind: Kind, port: int) -> None:
        self.kind = kind
        self._port = port
        self.url = f"mqtt://{LOOPBACK}:{port}"

    def _why(self) -> str:
        if not self.log_file.exists():
            return (
                f"no MQTT broker: {self._looked_for()}; install mosquitto, or the pure-Python one with "
                "pip install 'wattloop[demo]'"
            )
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the broker did not start on {LOOPBACK}: {last} (log: {self.log_file})"

    def _looked_for(self) -> str:
        mosquitto = f"mosquitto is not in any of {', '.join(self._search)}"
        amqtt = "the package amqtt is not installed"
        return {"auto": f"{mosquitto}, and {amqtt}", "mosquitto": mosquitto, "amqtt": amqtt}[self._prefer]


def usual_directories() -> list[str]:
    """Where programs lie: on PATH, and where Debian puts mosquitto, off an ordinary user's PATH."""
    return [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]


def find_mosquitto(search: Sequence[str] | None = None) -> str | None:
    """The path of mosquitto on this machine, or None."""
    return shutil.which("mosquitto", path=os.pathsep.join(usual_directories() if search is None else search))


def free_port() -> int:
    """A loopback TCP port that nobody holds at this moment.

    It lies below the kernel's range of source ports: a client that retries there while the broker is down could
    otherwise connect to itself, and then hold the port against the broker.
    """
    draw = random.SystemRandom()  # two test runs with one seed must not meet
    for _ in range(PORT_DRAWS):
        port = draw.randrange(*PORT_RANGE)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise BrokerUnavailable(f"no free port on {LOOPBACK} in {PORT_RANGE[0]}…{PORT_RANGE[1]}")


def _amqtt_command(port: int) -> list[str]:
    # -P: a file named hil.py in the working directory must not stand in for this package.
    return [sys.executable, "-P", "-m", "hil.amqttd", str(port)]


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # a mosquitto with file capabilities hides its sockets: an answer must do
        return _answers(port)
    return any(item.status == psutil.CONN_LISTEN and item.laddr[1] == port for item in connections)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0):
        return True
    return False
