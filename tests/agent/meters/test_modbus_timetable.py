from pathlib import Path
from typing import Any

import pytest

from agent.config import load_setup
from agent.meters.modbus.endpoint import Endpoint, SerialEndpoint, TcpEndpoint
from agent.meters.modbus.plan import Plan
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register
from agent.meters.modbus.timetable import Booking, check_lines, round_of
from hil.clock import ManualClock
from hil.yamlfile import ConfigError, Document

LINE = SerialEndpoint("/dev/ttyUSB0", 9600, "N", 1)
POWER = Register(Quantity.POWER_W, 3, 0, "f32")
ENERGY = Register(Quantity.ENERGY_J, 3, 100, "f32")
RARE = Register(Quantity.ENERGY_J, 3, 100, "f32", slow=True)

CHAR_S = 10 / 9600
REQUEST_S = (8 + 9) * CHAR_S  # two registers
SILENCE_S = 3.5 * CHAR_S


def booking(index: int = 0, *, endpoint: Endpoint = LINE, interval_s: float = 1.0, **plan: Any) -> Booking:
    return Booking(("meters", index), endpoint, Plan(**({"registers": (POWER,)} | plan)), interval_s)


def faults(*bookings: Booking) -> list[str]:
    document: Document[Any] = Document(Path("agent.yaml"))
    check_lines(bookings, document)
    return [str(fault) for fault in document.faults]


def test_a_round_is_frames_silence_and_turnaround():
    share = round_of([booking(registers=(POWER, ENERGY), turnaround_s=0.03)])
    assert share.frames_s == pytest.approx(2 * REQUEST_S)
    assert share.silence_s == pytest.approx(2 * SILENCE_S)
    assert share.turnaround_s == pytest.approx(0.06)
    assert (share.requests, share.words) == (2, 4)


def test_parity_and_stop_bits_take_their_time():
    even = round_of([booking(endpoint=SerialEndpoint("tty", 9600, "E", 2))])
    assert even.frames_s == pytest.approx(REQUEST_S * 12 / 10)


def test_a_device_s_own_silence_counts_where_it_is_longer():
    assert round_of([booking(silence_s=0.1)]).silence_s == pytest.approx(0.1)


def test_slow_registers_are_read_in_turn():
    ten = round_of([booking(n, registers=(POWER, RARE)) for n in range(10)])
    eleven = round_of([booking(n, registers=(POWER, RARE)) for n in range(11)])
    assert (ten.requests, eleven.requests) == (11, 13)


def test_what_fits_is_accepted():
    assert faults(*(booking(n) for n in range(20))) == []


def test_what_does_not_fit_is_refused_with_its_figures():
    (fault,) = faults(*(booking(n, silence_s=0.1, interval_s=1.0 + n) for n in range(10)))
    assert fault == (
        "agent.yaml: meters[0].interval_s: 1 s: too short, a round of the 10 meters on /dev/ttyUSB0 (9600 baud, 8N1) "
        "takes 1.38 s: 20 registers in 10 requests 0.18 s, silence 1.00 s, turnaround 0.20 s"
    )


def test_one_meter_alone_may_be_too_much():
    registers = (POWER, *(Register(Quantity.ENERGY_J, 3, 10 * n, "f32") for n in range(1, 31)))
    (fault,) = faults(booking(registers=registers))
    assert "a round of the one meter on" in fault


def test_lines_are_counted_apart():
    other = SerialEndpoint("/dev/ttyUSB1", 9600, "N", 1)
    assert faults(*(booking(n, silence_s=0.1, endpoint=(LINE, other)[n % 2]) for n in range(14))) == []


def test_over_tcp_only_what_is_known_counts():
    tcp = TcpEndpoint("192.0.2.1", 502)
    assert round_of([booking(endpoint=tcp)]).total_s == 0.0
    assert faults(*(booking(n, endpoint=tcp) for n in range(300))) == []
    assert faults(*(booking(n, endpoint=tcp, silence_s=0.1) for n in range(11)))
    converter = TcpEndpoint("192.0.2.1", 4196, "rtu")
    assert round_of([booking(endpoint=converter)]).total_s == pytest.approx(0.02)


@pytest.mark.parametrize(
    "other", [SerialEndpoint("/dev/ttyUSB0", 19200, "N", 1), SerialEndpoint("/dev/ttyUSB0", 9600, "E", 1)]
)
def test_a_line_has_one_setting(other: Endpoint):
    (fault,) = faults(booking(0), booking(1, endpoint=other))
    assert fault == (
        f"agent.yaml: meters[1]: {other}: expected /dev/ttyUSB0 (9600 baud, 8N1) as for another meter, "
        "for they share it"
    )


def test_a_port_has_one_framing():
    assert faults(booking(0, endpoint=TcpEndpoint("a", 502)), booking(1, endpoint=TcpEndpoint("a", 502, "rtu")))


def test_an_agent_whose_line_is_overfull_does_not_start(tmp_path: Path):
    rest = "serial: {port: /dev/ttyUSB0, baudrate: 1200}, registers: {power_w: {address: 0, type: f32}}"
    meters = "".join(f"- {{name: m{n}, kind: modbus, unit: {n}, {rest}}}\n" for n in range(1, 10))
    head = "site: lab\nnode: gateway\ninterval_s: 1\nmeters:\n"
    path = tmp_path / "agent.yaml"
    path.write_text(head + meters)
    with pytest.raises(ConfigError) as caught:
        load_setup(path, ManualClock(), {})
    (fault,) = caught.value.faults
    assert str(fault) == (
        f"{path}:5: meters[0].interval_s: 1 s: too short, a round of the 9 meters on /dev/ttyUSB0 (1200 baud, 8N1) "
        "takes 1.72 s: 18 registers in 9 requests 1.27 s, silence 0.26 s, turnaround 0.18 s"
    )
    path.write_text(head.replace("interval_s: 1\n", "interval_s: 2\n") + meters)
    assert len(load_setup(path, ManualClock(), {}).meters) == 9
