"""Finding units and telling what they are, over links in memory; and over a socket, to see what goes over the wire."""

import argparse
import asyncio
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import yaml

from agent.commands.scan import add_arguments, scan
from agent.meters.modbus import ModbusMeterConfig, plan_of
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.connection import connect as connect_really
from agent.meters.modbus.endpoint import Endpoint, SerialEndpoint, TcpEndpoint
from agent.meters.modbus.errors import ILLEGAL_ADDRESS, NO_ANSWER, BusError, Refused, Silent
from agent.meters.modbus.fixture import Fixture, FixtureImage
from agent.meters.modbus.identify import Sureness
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.profile import FOLDER, Profile, load_profile, shipped
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.scan import Found, NotReached, Scan
from hil.clock import ManualClock, SystemClock
from hil.commandline import Failure
from hil.yamlfile import Document

PROFILES = {name: load_profile(FOLDER / f"{name}.yaml") for name in shipped()}
HERE = TcpEndpoint("10.0.0.1", 502)
GONE = BusError("a damaged answer")


class Device:
    """Shows the words of a fixture, and the answers to its profile's questions; refuses everything else."""

    def __init__(self, profile: Profile, fixture: Fixture, plate: Nameplate | None = None) -> None:
        self._function = fixture.function or profile.function
        self._image = FixtureImage(fixture, profile.function)
        self._plate = plate
        self._answers = {
            (config.function or profile.function, config.address, config.count): [int(config.expect[0])]
            for config in (*profile.identify, *profile.require)
            if config.expect and config.type == "u16"
        }

    def words(self, block: Block) -> Sequence[int]:
        answer = self._answers.get((block.function, block.address, block.count))
        if answer is not None:
            return answer
        try:
            return self._image.words(block.function, block.address, block.count)
        except LookupError:
            raise Refused(ILLEGAL_ADDRESS, "that") from None

    def plate(self) -> Nameplate:
        if self._plate is None:
            raise Refused(1, "its identification")
        return self._plate


class Whole:
    """Shows a word wherever it has none of its own: a device with no gaps between its registers."""

    def __init__(self, function: int, words: Mapping[int, int]) -> None:
        self._function = function
        self._words = words

    def words(self, block: Block) -> Sequence[int]:
        if block.function != self._function or block.address > 0x1000:
            raise Refused(ILLEGAL_ADDRESS, "that")
        return [self._words.get(at, 0) for at in range(block.address, block.address + block.count)]

    def plate(self) -> Nameplate:
        raise Silent("nothing")


class Faulty:
    """Answers everything with the same error."""

    def __init__(self, error: BusError) -> None:
        self._error = error

    def words(self, block: Block) -> Sequence[int]:
        raise self._error

    def plate(self) -> Nameplate:
        raise self._error


Units = Mapping[int, Device | Whole | Faulty]


class MemoryLink:
    matches = True
    alive = True

    def __init__(self, units: Units) -> None:
        self._units = units
        self.closed = False

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        assert not self.closed
        return self._unit(unit).words(block)

    async def describe(self, unit: int, timeout_s: float) -> Nameplate:
        assert not self.closed
        return self._unit(unit).plate()

    def _unit(self, unit: int) -> Device | Whole | Faulty:
        if unit not in self._units:
            raise Silent(f"no answer from unit {unit}")
        return self._units[unit]

    def close(self) -> None:
        self.closed = True


class Wiring:
    """Units by their endpoints, and the connections that were made."""

    def __init__(self, endpoints: Mapping[Endpoint, Units]) -> None:
        self._endpoints = endpoints
        self.links: list[MemoryLink] = []
        self.tried: list[Endpoint] = []

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> MemoryLink:
        self.tried.append(endpoint)
        if endpoint not in self._endpoints:
            raise BusError(f"no connection to {endpoint}: connection refused")
        self.links.append(MemoryLink(self._endpoints[endpoint]))
        return self.links[-1]


async def found_in(units: Units, profiles: Mapping[str, Profile] = PROFILES) -> list[Found]:
    wiring = Wiring({HERE: units})
    search = Scan(wiring.connect, ManualClock(), profiles)
    await search.run([HERE], range(1, 11))
    assert all(link.closed for link in wiring.links)
    assert search.asked == 10
    return search.found


# Telling what a device is


SHOWN = [
    (name, index)
    for name, profile in PROFILES.items()
    for index, fixture in enumerate(profile.fixtures)
    if Quantity.POWER_W in fixture.expect and not name.startswith("janitza")  # whose test data contradict themselves
    if profile.outlets is None or fixture.outlet is None
]


@pytest.mark.parametrize(("name", "index"), SHOWN)
async def test_each_shipped_profile_is_among_those_that_fit_its_own_fixture(name: str, index: int):
    profile = PROFILES[name]
    (one,) = await found_in({5: Device(profile, profile.fixtures[index])})
    assert one.unit == 5
    assert name in [candidate.name for candidate in one.candidates]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("eastron-sdm120", 0),
        ("eastron-sdm72", 0),
        ("carlo-gavazzi-em340", 0),
        ("carlo-gavazzi-em24-e1", 0),
        ("shelly-pro-3em", 0),
        ("abb-b23", 1),
        ("sunspec-inverter", 0),
    ],
)
async def test_a_device_that_says_what_it_is_is_certain(name: str, index: int):
    profile = PROFILES[name]
    (one,) = await found_in({5: Device(profile, profile.fixtures[index])})
    assert [(candidate.name, candidate.sureness) for candidate in one.candidates] == [(name, Sureness.CERTAIN)]


async def test_a_nameplate_tells_two_models_with_the_same_registers_apart():
    profile = PROFILES["schneider-iem3000"]
    plate = Nameplate("Schneider Electric", "METSEIEM3155", "V1.3")
    (one,) = await found_in({1: Device(profile, profile.fixtures[0], plate)})
    assert [candidate.name for candidate in one.candidates] == ["schneider-iem3000"]
    assert one.candidates[0].why == "it says Schneider Electric METSEIEM3155 V1.3"


async def test_a_nameplate_of_another_vendor_rules_a_profile_out():
    profile = PROFILES["schneider-iem3000"]
    (one,) = await found_in({1: Device(profile, profile.fixtures[0], Nameplate("Acme"))})
    assert not [candidate for candidate in one.candidates if candidate.name.startswith("schneider")]


def three_phases() -> dict[int, int]:
    """An SDM630 of a time when it did not tell its model: 230 V, 10 A and 2300 W a phase."""
    words = {}
    singles = {0x00: 230, 0x02: 231, 0x04: 229, 0x06: 10, 0x08: 10, 0x0A: 10, 0x0C: 2300, 0x0E: 2310, 0x10: 2290}
    totals = {0x34: 6900, 0x38: 6900, 0x3E: 1, 0x46: 50, 0x48: 1234, 0x1E: 1}
    for address, value in (singles | totals).items():
        words[address], words[address + 1] = struct.unpack(">2H", struct.pack(">f", value))
    return words


async def test_a_three_phase_meter_is_rather_taken_for_one_than_for_a_single_phase_one():
    (one,) = await found_in({1: Whole(4, three_phases())})
    assert one.candidates[0].name == "eastron-sdm630"
    assert one.candidates[0].sureness is Sureness.LIKELY
    assert one.candidates[0].values[Quantity.POWER_W] == 6900
    assert {"eastron-sdm72v2"} <= {candidate.name for candidate in one.candidates[1:]}


async def test_a_device_of_nothing_but_zeros_is_at_most_possible():
    (one,) = await found_in({1: Whole(3, {})})
    assert {candidate.sureness for candidate in one.candidates} <= {Sureness.POSSIBLE}


async def test_a_device_that_no_profile_fits_is_told_with_what_it_says():
    words = dict.fromkeys(range(0x1001), 0x7FFF)
    (one,) = await found_in({4: Whole(4, words)})
    assert (one.unit, one.candidates) == (4, ())


async def test_what_must_be_seen_to_first_is_told():
    profile = PROFILES["carlo-gavazzi-em24-e1"]
    fixture = profile.fixtures[0]
    other = msgspec.structs.replace(fixture, words={**fixture.words, 0xA000: (3,)})
    device = Device(msgspec.structs.replace(profile, require=()), other)
    (one,) = await found_in({1: device})
    assert "set its application to H" in one.candidates[0].note


async def test_a_device_that_is_certain_but_shows_no_power_is_told_all_the_same():
    profile = PROFILES["eastron-sdm120"]
    fixture = msgspec.structs.replace(profile.fixtures[0], words={**profile.fixtures[0].words, 0x0C: (0x7FC0, 0)})
    (one,) = await found_in({1: Device(profile, fixture)})
    (candidate,) = one.candidates
    assert (candidate.sureness, candidate.note) == (Sureness.CERTAIN, "power_w is not a number (0x7FC00000)")


async def test_two_meters_of_one_sunspec_device_are_two_outlets():
    profile = PROFILES["sunspec-meter"]
    fixture = profile.fixtures[0]
    second = {40295: fixture.words[40188], 40313: fixture.words[40206], 40402: (0xFFFF, 0)}
    device = Device(profile, msgspec.structs.replace(fixture, words={**fixture.words, **second}))
    (one,) = await found_in({1: device})
    outlets = {candidate.name: candidate.outlets for candidate in one.candidates}
    assert outlets == {"sunspec-inverter": (), "sunspec-meter": (1, 2)}  # it has one inverter and two meters


async def test_outlets_are_counted_up_to_the_first_that_is_not_there():
    words = {}
    for outlet in (1, 2, 3):
        words[1000 + 20 * (outlet - 1)] = (0x4170, 0x0000, 0x4366, 0x0000, 0x3D85, 0x1EB8, 0x4248, 0x0000, 0x3F80, 0)
    fixture = msgspec.structs.replace(PROFILES["wattloop-pdu"].fixtures[0], words=words)
    (one,) = await found_in({1: Device(PROFILES["wattloop-pdu"], fixture)})
    assert one.candidates[0].outlets == (1, 2, 3)


# Finding units


async def test_units_that_are_silent_unreachable_or_garbled_are_passed_over():
    pzem = Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])
    units = {2: Faulty(Refused(NO_ANSWER, "that")), 3: Faulty(GONE), 7: pzem}
    assert [one.unit for one in await found_in(units)] == [7]


async def test_a_device_that_takes_any_number_for_its_own_is_one():
    pzem = Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])
    assert [one.unit for one in await found_in(dict.fromkeys(range(1, 11), pzem))] == [1]


async def test_only_the_profiles_that_were_asked_for_are_tried():
    pzem = Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])
    (one,) = await found_in({1: pzem}, {"eastron-sdm630": PROFILES["eastron-sdm630"]})
    assert one.candidates == ()


async def test_lines_are_tried_up_to_the_first_setting_that_brings_an_answer():
    lines = [SerialEndpoint("/dev/ttyS9", baudrate, "N", 1) for baudrate in (2400, 9600, 19200)]
    pzem = Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])
    wiring = Wiring({lines[0]: {}, lines[1]: {1: pzem}, lines[2]: {1: pzem}})
    clock = ManualClock()
    search = Scan(wiring.connect, clock, PROFILES)
    scanning = asyncio.ensure_future(search.run(lines, [1, 2]))
    while not scanning.done():
        await clock.advance(0.1)
    await scanning
    assert [one.endpoint for one in search.found] == [lines[1]]
    assert lines[2] not in wiring.tried


async def test_an_endpoint_that_is_not_there_is_said_so():
    search = Scan(Wiring({}).connect, ManualClock(), PROFILES)
    with pytest.raises(NotReached, match="connection refused"):
        await search.run([HERE], [1])


async def test_a_device_that_takes_one_connection_at_a_time_is_given_a_moment():
    pzem = Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])
    wiring, clock, refusals = Wiring({HERE: {2: pzem}}), ManualClock(), [0, 1, 1, 0, 1, 1, 1]

    async def connect(endpoint: Endpoint, timeout_s: float) -> MemoryLink:
        if refusals.pop(0) if refusals else 0:
            raise BusError("connection refused")
        return await wiring.connect(endpoint, timeout_s)

    search = Scan(connect, clock, PROFILES)
    scanning = asyncio.ensure_future(search.run([HERE], [1, 2]))
    while not scanning.done():
        await clock.advance(0.1)
    await scanning
    assert [one.unit for one in search.found] == [2]


# The command


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


async def test_what_it_prints_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pzem, sdm = PROFILES["pzem-004t"], PROFILES["eastron-sdm120"]
    wiring = Wiring({HERE: {3: Device(pzem, pzem.fixtures[0]), 7: Device(sdm, sdm.fixtures[0])}})
    assert await scan(arguments("10.0.0.1", "--units", "1-10"), wiring.connect, ManualClock()) == 0
    printed = capsys.readouterr().out
    assert "likely: voltage, frequency and power make sense" in printed
    assert "certain: register 0xFC02, function 3 says 32 (0x20)" in printed
    entries = yaml.safe_load(printed)["meters"]
    assert [entry["profile"] for entry in entries] == ["pzem-004t", "eastron-sdm120"]
    document: Document[ModbusMeterConfig] = Document(tmp_path / "agent.yaml")
    for entry in entries:
        config = msgspec.convert(entry, ModbusMeterConfig)
        assert config.endpoint == HERE
        assert plan_of(config, document, ()) is not None
    assert document.faults == []


async def test_a_line_s_settings_go_into_it(capsys: pytest.CaptureFixture[str]):
    line = SerialEndpoint("/dev/ttyS9", 4800, "E", 1)
    pzem = PROFILES["pzem-004t"]
    wiring = Wiring({line: {1: Device(pzem, pzem.fixtures[0])}})
    asked = arguments("/dev/ttyS9", "--baudrate", "4800", "--parity", "e", "--units", "1", "--profiles", "pzem-004t")
    clock = ManualClock()
    scanning = asyncio.ensure_future(scan(asked, wiring.connect, clock))
    while not scanning.done():
        await clock.advance(0.1)
    assert await scanning == 0
    (entry,) = yaml.safe_load(capsys.readouterr().out)["meters"]
    assert msgspec.convert(entry, ModbusMeterConfig).endpoint == line


async def test_a_profile_of_one_s_own_is_tried_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "my meter.yaml"
    path.write_text(FOLDER.joinpath("pzem-004t.yaml").read_text())
    wiring = Wiring({HERE: {1: Device(PROFILES["pzem-004t"], PROFILES["pzem-004t"].fixtures[0])}})
    assert await scan(arguments("10.0.0.1", "--profiles", str(path)), wiring.connect, ManualClock()) == 0
    (entry,) = yaml.safe_load(capsys.readouterr().out)["meters"]
    assert entry["profile"] == str(path)
    msgspec.convert(entry, ModbusMeterConfig)


async def test_one_that_no_profile_fits_is_a_comment_and_a_failure(capsys: pytest.CaptureFixture[str]):
    wiring = Wiring({HERE: {1: Whole(4, dict.fromkeys(range(0x1001), 0x7FFF))}})
    assert await scan(arguments("10.0.0.1", "--units", "1"), wiring.connect, ManualClock()) == 1
    assert "# unit 1 answers, but no profile fits" in capsys.readouterr().out


async def test_nothing_found_comes_with_advice(capsys: pytest.CaptureFixture[str]):
    assert await scan(arguments("10.0.0.1", "--units", "1-3,7"), Wiring({HERE: {}}).connect, ManualClock()) == 1
    assert "nothing answers at 10.0.0.1:502, units 1-3, 7\nis Modbus TCP switched on" in capsys.readouterr().err


class Endless(MemoryLink):
    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        if unit < 2:
            return await super().read(unit, block, timeout_s)
        return await asyncio.get_running_loop().create_future()


async def test_it_ends_in_time_with_what_it_has(capsys: pytest.CaptureFixture[str]):
    pzem = PROFILES["pzem-004t"]

    async def connect(endpoint: Endpoint, timeout_s: float) -> Endless:
        return Endless({1: Device(pzem, pzem.fixtures[0])})

    assert await scan(arguments("10.0.0.1", "--limit-s", "0.05"), connect, ManualClock()) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# wattloop-agent scan 10.0.0.1: not finished\nmeters:\n")
    assert await scan(arguments("10.0.0.1", "--limit-s", "0.05", "--units", "2"), connect, ManualClock()) == 1
    assert "stopped after 0.05 s, 0 units asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["h:0"], "h:0: expected HOST, HOST:PORT"),
        (["h:http"], "expected HOST, HOST:PORT"),
        (["h", "--units", "1-256"], "expected numbers from 0 to 255"),
        (["h", "--units", "x"], "expected numbers from 0 to 255"),
        (["/dev/ttyS9", "--units", "0"], "expected units from 1 to 247"),
        (["/dev/ttyS9", "--baudrate", "fast"], "expected speeds such as"),
        (["/dev/ttyS9", "--parity", "Q"], "expected some of N,E,O"),
        (["h", "--profiles", "nothing"], "no profile nothing; expected one of abb-b21"),
        (["10.0.0.2"], "no connection to 10.0.0.2:502: connection refused"),
    ],
)
async def test_what_means_nothing_or_is_not_there_is_one_line(argv: list[str], complaint: str):
    with pytest.raises(Failure, match=complaint):
        await scan(arguments(*argv), Wiring({}).connect, ManualClock())


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("pdu.example", TcpEndpoint("pdu.example", 502)),
        ("10.0.0.9:1502", TcpEndpoint("10.0.0.9", 1502)),
        ("2001:db8::1", TcpEndpoint("2001:db8::1", 502)),
        ("[2001:db8::1]:1502", TcpEndpoint("2001:db8::1", 1502)),
    ],
)
async def test_targets(target: str, endpoint: Endpoint):
    wiring = Wiring({endpoint: {}})
    await scan(arguments(target, "--units", "1"), wiring.connect, ManualClock())
    assert set(wiring.tried) == {endpoint}


# What goes over the wire


async def test_it_only_reads():
    functions: set[int] = set()
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                pdu = await reader.readexactly(length - 1)
                functions.add(pdu[0])
                words = b"\x00\x00" * int.from_bytes(pdu[3:5], "big")
                answer = bytes((0xAB, 1)) if pdu[0] == 43 else bytes((pdu[0], len(words))) + words
                writer.write(struct.pack(">HHHB", tid, 0, len(answer) + 1, unit) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    search = Scan(connect_really, SystemClock(), PROFILES)
    await search.run([TcpEndpoint("127.0.0.1", port)], [1, 2])
    await ended.wait()
    server.close()
    assert len(search.found) == 2
    assert functions == {3, 4, 43}
