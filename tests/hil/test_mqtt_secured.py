"""MqttBus against a mosquitto with TLS, passwords and access control, as a lab runs it."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from hil.broker import free_port
from hil.bus import Will
from hil.clock import SystemClock
from hil.mqtt import BrokerConfig, MqttBus

PATIENCE_S = 30.0
ACL = """\
user node-1
topic write site/node-1/#
topic read site/cmd
user lab
topic readwrite site/#
"""


@dataclass(frozen=True, slots=True)
class Lab:
    """A secured mosquitto: one plain listener with passwords, one TLS listener with client certificates."""

    directory: Path
    plain_port: int
    tls_port: int

    def file(self, name: str) -> str:
        return str(self.directory / name)

    def with_password(self, user: str, name: str) -> BrokerConfig:
        url = f"mqtt://127.0.0.1:{self.plain_port}"
        return BrokerConfig(url=url, username=user, password_file=self.file(name))

    def with_certificate(self, name: str | None, ca: str = "ca", host: str = "localhost") -> BrokerConfig:
        files = {} if name is None else {"cert_file": self.file(f"{name}.pem"), "key_file": self.file(f"{name}.key")}
        return BrokerConfig(url=f"mqtts://{host}:{self.tls_port}", ca_file=self.file(f"{ca}.pem"), **files)


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_authority(directory: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
    openssl(directory, "req", "-x509", *key, "-out", f"{name}.pem", *subject)


def make_certificate(directory: Path, name: str, names: str) -> None:
    (directory / f"{name}.ext").write_text(f"subjectAltName={names}\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
    openssl(directory, "req", *key, "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2", *signed_by)


def write_secret(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)


def make_files(directory: Path) -> None:
    for authority in ("ca", "other-ca"):
        make_authority(directory, authority)
    make_certificate(directory, "server", "DNS:localhost")
    make_certificate(directory, "node-1", "DNS:node-1")
    (directory / "acl").write_text(ACL)
    (directory / "passwords").touch(mode=0o600)
    for user in ("node-1", "lab"):
        subprocess.run(["mosquitto_passwd", "-b", "passwords", user, f"{user}'s word"], cwd=directory, check=True)
        write_secret(directory, f"{user}.password", f"{user}'s word\n")
    write_secret(directory, "wrong.password", "a guess\n")


def configuration(plain_port: int, tls_port: int) -> str:
    return f"""\
per_listener_settings true
{"user root" if os.geteuid() == 0 else ""}
listener {plain_port} 127.0.0.1
allow_anonymous false
password_file passwords
acl_file acl
set_tcp_nodelay true
listener {tls_port} localhost
set_tcp_nodelay true
allow_anonymous false
cafile ca.pem
certfile server.pem
keyfile server.key
require_certificate true
use_identity_as_username true
acl_file acl
"""


def answers(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def lab(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    for tool in ("openssl", "mosquitto_passwd"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    directory = tmp_path_factory.mktemp("lab")
    make_files(directory)
    lab = Lab(directory, free_port(), free_port())
    (directory / "mosquitto.conf").write_text(configuration(lab.plain_port, lab.tls_port))
    with subprocess.Popen(
        [mosquitto, "-c", "mosquitto.conf"], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not (answers(lab.plain_port) and answers(lab.tls_port)):
            assert process.poll() is None, "mosquitto refused its configuration"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield lab
        process.terminate()


Buses = Callable[..., MqttBus]


@pytest.fixture
async def bus(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Buses]:
    """Makes buses that end with the test."""
    caplog.set_level(logging.INFO)
    made: list[MqttBus] = []

    def make(config: BrokerConfig, client_id: str = "node-1", will: Will | None = None) -> MqttBus:
        made.append(MqttBus(config, client_id, SystemClock(), will))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


async def connected(bus: MqttBus) -> MqttBus:
    await bus.start()
    async with asyncio.timeout(PATIENCE_S):
        await bus.wait_connected()
    return bus


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for lies beyond an interface
            await asyncio.sleep(0.005)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_password_opens_the_door(lab: Lab, bus: Buses) -> None:
    await connected(bus(lab.with_password("lab", "lab.password"), "lab"))


async def test_a_wrong_password_is_told_once_and_a_corrected_one_taken_up(
    lab: Lab, bus: Buses, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    write_secret(tmp_path, "password", "a guess")
    url = f"mqtt://127.0.0.1:{lab.plain_port}"
    node = bus(BrokerConfig(url=url, username="node-1", password_file=str(tmp_path / "password")))
    await node.start()
    await until(lambda: bool(warnings(caplog)))
    await asyncio.sleep(0.3)  # several attempts
    assert not node.connected
    assert warnings(caplog) == [f"{url}: the broker refused the login of user node-1: Not authorized; will keep trying"]
    write_secret(tmp_path, "password", "node-1's word")
    await until(lambda: node.connected)
    assert "word" not in caplog.text


async def test_what_access_control_denies_is_told_once_a_topic(
    lab: Lab, bus: Buses, caplog: pytest.LogCaptureFixture
) -> None:
    node = bus(lab.with_password("node-1", "node-1.password"))
    node.subscribe("site/node-2/data")
    node.subscribe("site/cmd")
    await connected(node)
    for _ in range(3):
        assert node.publish("site/node-2/data", b"forged")
    assert node.publish("site/node-1/data", b"own")
    await until(lambda: node.counters.refused >= 3)
    url = f"mqtt://127.0.0.1:{lab.plain_port}"
    assert f"{url}: site/node-2/data: Not authorized" in warnings(caplog)
    assert len(warnings(caplog)) == 1


async def test_what_access_control_allows_arrives(lab: Lab, bus: Buses) -> None:
    controller = bus(lab.with_password("lab", "lab.password"), "lab")
    controller.subscribe("site/node-1/#")
    await connected(controller)
    node = await connected(bus(lab.with_password("node-1", "node-1.password")))
    node.publish("site/node-1/data", b"own")
    [message] = await asyncio.wait_for(controller.receive(), PATIENCE_S)
    assert message.payload == b"own"


async def test_mutual_tls(lab: Lab, bus: Buses) -> None:
    controller = bus(lab.with_password("lab", "lab.password"), "lab")
    controller.subscribe("site/#")
    await connected(controller)
    node = await connected(bus(lab.with_certificate("node-1")))
    assert node.description == f"mqtts://localhost:{lab.tls_port} (MQTT 5)"
    sent = [os.urandom(60_000) for _ in range(20)]
    for payload in sent:
        assert node.publish("site/node-1/data", payload)
    received: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(received) < len(sent):
            received += [message.payload for message in await controller.receive()]
    assert received == sent


@pytest.mark.parametrize(
    ("certificate", "ca", "host", "told"),
    [
        pytest.param(
            "node-1", "other-ca", "localhost", "TLS certificate not accepted: ", id="a broker nobody vouches for"
        ),
        pytest.param(
            "node-1", "ca", "127.0.0.1", "TLS certificate not accepted: IP address mismatch", id="another name"
        ),
        pytest.param(
            None,
            "ca",
            "localhost",
            "the broker hung up; it may want a certificate (cert_file and key_file)",
            id="no certificate of our own",
        ),
    ],
)
async def test_tls_that_does_not_hold_is_told_once(
    lab: Lab,
    bus: Buses,
    caplog: pytest.LogCaptureFixture,
    certificate: str | None,
    ca: str,
    host: str,
    told: str,
) -> None:
    node = bus(lab.with_certificate(certificate, ca, host))
    await node.start()
    await until(lambda: bool(warnings(caplog)))
    await asyncio.sleep(0.2)
    assert not node.connected
    assert warnings(caplog)[0].startswith(f"mqtts://{host}:{lab.tls_port}: {told}")
    assert len(warnings(caplog)) <= 2
    assert "Traceback" not in caplog.text


async def test_stop_over_tls_leaves_no_will(lab: Lab, bus: Buses) -> None:
    observer = bus(lab.with_password("lab", "lab.password"), "lab")
    observer.subscribe("site/node-1/state")
    await connected(observer)
    for _ in range(3):
        node = bus(lab.with_certificate("node-1"), "node-1", Will("site/node-1/state", b"lost"))
        node.subscribe("site/cmd")
        await connected(node)
        await node.stop()
    observer.publish("site/node-1/state", b"mark")
    [message] = await asyncio.wait_for(observer.receive(), PATIENCE_S)
    assert message.payload == b"mark"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_a_round_trip_waits_for_no_delayed_acknowledgement(lab: Lab, bus: Buses, secure: bool) -> None:
    node = bus(lab.with_certificate("node-1") if secure else lab.with_password("lab", "lab.password"), "node-1")
    controller = bus(lab.with_password("lab", "lab.password"), "lab")
    node.subscribe("site/cmd")
    controller.subscribe("site/node-1/ack")
    await connected(node)
    await connected(controller)
    taken: list[float] = []
    for _ in range(15):
        start = time.perf_counter()
        controller.publish("site/cmd", b"x")
        await asyncio.wait_for(node.receive(), PATIENCE_S)
        node.publish("site/node-1/ack", b"x")
        await asyncio.wait_for(controller.receive(), PATIENCE_S)
        taken.append(time.perf_counter() - start)
    assert median(taken) < 0.03  # with Nagle's algorithm on one side it is 0.04 s, on both 0.09 s
