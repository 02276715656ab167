"""The embedded broker: which one, where, ready when it says so, and gone when it should be."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import psutil
import pytest

from hil.broker import (
    LOOPBACK,
    PORT_RANGE,
    BrokerUnavailable,
    EmbeddedBroker,
    free_port,
    usual_directories,
)

PATIENCE_S = 20.0
CONNECT_3_1_1 = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0f\x00\x01x"
CONNECT_5 = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x0f\x00\x00\x01x"

Kind = Literal["mosquitto", "amqtt"]


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each broker in turn."""
    if request.param == "mosquitto":
        request.getfixturevalue("mosquitto")
    kind: Kind = request.param
    return kind


def port_of(broker: EmbeddedBroker) -> int:
    return int(broker.url.rpartition(":")[2])


def greeted(port: int, connect: bytes = CONNECT_3_1_1) -> bytes:
    """What a broker answers to a CONNECT."""
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S) as client:
        client.sendall(connect)
        return client.recv(100)


def is_gone(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(PATIENCE_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_it_answers_as_soon_as_it_is_started(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        assert (broker.kind, broker.url) == (kind, f"mqtt://127.0.0.1:{port_of(broker)}")
        assert greeted(port_of(broker)) == b"\x20\x02\x00\x00"


def test_it_listens_on_loopback_alone(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        assert broker.pid is not None
        listening = [item for item in psutil.Process(broker.pid).net_connections() if item.status == "LISTEN"]
        assert [item.laddr.ip for item in listening] == [LOOPBACK]


def test_a_path_with_spaces_is_no_obstacle(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "my lab" / "not there yet", prefer=kind) as broker:
        assert greeted(port_of(broker))
        assert broker.log_file.parent == tmp_path / "my lab" / "not there yet"


def test_many_at_once_do_not_meet(tmp_path: Path) -> None:
    brokers = [EmbeddedBroker(tmp_path / f"{n}") for n in range(5)]
    try:
        for broker in brokers:
            broker.start()
        assert len({broker.url for broker in brokers}) == 5
    finally:
        for broker in brokers:
            broker.stop()


def test_stop_ends_it_and_is_harmless_when_repeated(kind: Kind, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, prefer=kind)
    broker.stop()
    broker.start()
    pid = broker.pid
    assert pid is not None
    broker.stop()
    broker.stop()
    assert broker.pid is None
    assert is_gone(pid)


def test_it_comes_back_on_the_same_port(kind: Kind, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, prefer=kind)
    broker.start()
    url = broker.url
    with socket.create_connection((LOOPBACK, port_of(broker))) as client:  # leaves the port in a wait state
        client.sendall(CONNECT_3_1_1)
        client.recv(100)
        broker.kill()
    assert broker.pid is None
    broker.start()
    try:
        assert broker.url == url
        assert greeted(port_of(broker))
    finally:
        broker.stop()


async def test_it_starts_within_an_event_loop(kind: Kind, tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        pid = broker.pid
        assert pid is not None
        assert await asyncio.to_thread(greeted, port_of(broker))
    assert is_gone(pid)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(kind: Kind, tmp_path: Path, sent: signal.Signals) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom hil.broker import EmbeddedBroker\n"
        f"broker = EmbeddedBroker(Path(sys.argv[1]), prefer={kind!r})\nbroker.start()\n"
        "print(broker.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(sent)
    assert is_gone(pid)


def test_it_is_in_a_process_group_of_its_own(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        assert broker.pid is not None
        assert os.getpgid(broker.pid) != os.getpgid(0)


def test_a_decoy_in_the_working_directory_is_not_taken_for_it(tmp_path: Path) -> None:
    decoy = tmp_path / "hil.py"
    decoy.write_text("raise SystemExit('the decoy was imported')")
    script = (
        "import sys\nsys.path.remove('')\nfrom pathlib import Path\nfrom hil.broker import EmbeddedBroker\n"
        "with EmbeddedBroker(Path('data'), prefer='amqtt') as broker:\n    print(broker.kind)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (result.stdout, result.stderr) == ("amqtt\n", "")


def test_a_port_that_a_stranger_holds_is_not_taken_for_ours(kind: Kind, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, prefer=kind)
    broker.start()
    port = port_of(broker)
    broker.stop()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((LOOPBACK, port))
        stranger.listen()
        with pytest.raises(BrokerUnavailable) as caught:
            broker.start()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("the broker did not start on 127.0.0.1: ")
    assert "in use" in text
    assert broker.pid is None


def test_what_is_missing_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        EmbeddedBroker(tmp_path / "data", prefer="mosquitto", search=["/none", "/such"]).start()
    assert str(caught.value) == (
        "no MQTT broker: mosquitto is not in any of /none, /such; "
        "install mosquitto, or the pure-Python one with pip install 'wattloop[demo]'"
    )


def test_a_directory_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailable, match=r"the broker's directory .*: Not a directory"):
        EmbeddedBroker(tmp_path / "file" / "data").start()


def test_without_amqtt_either_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['amqtt'] = None\n"
        "from pathlib import Path\nfrom hil.broker import BrokerUnavailable, EmbeddedBroker\n"
        "try:\n    EmbeddedBroker(Path(sys.argv[1]), search=['/none']).start()\n"
        "except BrokerUnavailable as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert result.stdout == (
        "no MQTT broker: mosquitto is not in any of /none, and the package amqtt is not installed; "
        "install mosquitto, or the pure-Python one with pip install 'wattloop[demo]'\n"
    )


def test_mosquitto_is_looked_for_off_the_path_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert usual_directories() == ["/nonexistent", "/usr/sbin", "/usr/local/sbin"]


def test_a_mosquitto_that_fails_gives_way_to_amqtt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "mosquitto"
    broken.write_text("#!/bin/sh\necho 'Error: not today'\nexit 3\n")
    broken.chmod(0o755)
    with EmbeddedBroker(tmp_path / "data", search=[str(tmp_path)]) as broker:
        assert broker.kind == "amqtt"
    assert [record.message for record in caplog.records] == [
        f"the broker did not start on 127.0.0.1: Error: not today (log: {broker.log_file}); trying amqtt"
    ]


def test_amqtt_refuses_mqtt_5_at_once(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer="amqtt") as broker:
        assert greeted(port_of(broker), CONNECT_5) == b"\x20\x02\x00\x01"
        assert greeted(port_of(broker)) == b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x10", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\xff", b"\x00" * 50]
)
def test_amqtt_survives_rubbish(rubbish: bytes, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer="amqtt") as broker:
        with socket.create_connection((LOOPBACK, port_of(broker)), timeout=PATIENCE_S) as client:
            client.sendall(rubbish)
        assert greeted(port_of(broker)) == b"\x20\x02\x00\x00"


def test_a_free_port_lies_below_the_kernel_s_own() -> None:
    first_of_the_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 1
    assert all(PORT_RANGE[0] <= port < min(PORT_RANGE[1], first_of_the_kernel) for port in ports)
