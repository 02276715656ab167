"""Every shipped profile against words that someone else has seen or worked out, alone and through the whole meter."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import ILLEGAL_ADDRESS, Refused, WrongDevice
from agent.meters.modbus.examine import ask_probe
from agent.meters.modbus.fixture import Fixture, FixtureImage
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.profile import FOLDER, Profile, load_profile, shipped
from agent.meters.modbus.quantities import PHASE_POWERS, Quantity
from agent.meters.modbus.registers import Register, RegisterError
from agent.meters.modbus.sunspec import choose, registers_of, walk
from agent.meters.modbus.table import RegisterTable, resolve
from hil.clock import ManualClock
from hil.devices import DeviceUnavailable, Quality, Reading
from hil.yamlfile import Document

PROFILES = {name: load_profile(FOLDER / f"{name}.yaml") for name in shipped()}
DOCUMENTED_CODES = {0x0020, 0x0079, 0x0084, 0x0089}
FIXTURES = [(name, index) for name, profile in PROFILES.items() for index in range(len(profile.fixtures))]

each_profile = pytest.mark.parametrize("name", sorted(PROFILES))
each_fixture = pytest.mark.parametrize(("name", "index"), FIXTURES)


class FixtureDevice:
    """Answers from a fixture's words, and refuses what it has none for."""

    def __init__(self, profile: Profile, fixture: Fixture) -> None:
        self._image = FixtureImage(fixture, profile.function)

    async def read(self, block: Block) -> Sequence[int]:
        try:
            return self._image.words(block.function, block.address, block.count)
        except LookupError as error:
            raise Refused(ILLEGAL_ADDRESS, f"{block.address}") from error

    async def describe(self) -> Nameplate:
        raise Refused(1, "its identification")


def tables(profile: Profile) -> list[RegisterTable]:
    if profile.sunspec is not None:
        return [entry.registers for entry in profile.sunspec.tables]
    assert profile.registers is not None
    return [profile.registers]


def registers(name: str) -> list[Register]:
    profile = PROFILES[name]
    return [register for table in tables(profile) for register in resolve(table, profile.defaults)]


async def registers_shown(profile: Profile, fixture: Fixture) -> tuple[Register, ...]:
    if profile.sunspec is not None:
        models = await walk(FixtureDevice(profile, fixture), profile.sunspec.bases)
        model, table = choose(profile.sunspec, models, fixture.outlet or 1)
        return registers_of(model, table, profile.defaults)
    assert profile.registers is not None
    offset = profile.outlets.stride * ((fixture.outlet or 1) - 1) if profile.outlets else 0
    return resolve(profile.registers, profile.defaults, offset)


# What a profile must have


def test_every_device_that_was_asked_for_is_there():
    devices = {
        "eastron": {"sdm120", "sdm230", "sdm630", "sdm72", "sdm72v2"},
        "schneider": {"iem3000", "pm5000"},
        "carlo": {"gavazzi-em340", "gavazzi-em24", "gavazzi-em24-e1"},
        "shelly": {"pro-3em", "pro-3em-monophase"},
        "janitza": {"umg", "umg604"},
        "abb": {"b21", "b23"},
        "siemens": {"pac"},
        "raritan": {"px-inlet", "px-outlet"},
        "victron": {"gx-grid", "gx-acload"},
        "sunspec": {"meter", "inverter"},
        "inepro": {"pro380"},
        "orno": {"we514", "we516"},
        "pzem": {"004t"},
        "wattloop": {"pdu"},
    }
    assert set(shipped()) == {f"{vendor}-{model}" for vendor, models in devices.items() for model in models}


@each_profile
def test_a_profile_bears_its_file_s_name_and_says_where_it_comes_from(name: str):
    profile = PROFILES[name]
    assert profile.profile == name
    assert profile.vendor
    assert profile.model
    assert profile.source


@each_profile
def test_a_profile_has_a_fixture_from_another_source_that_shows_power(name: str):
    profile = PROFILES[name]
    assert profile.fixtures
    assert all(fixture.source != profile.source for fixture in profile.fixtures)
    assert any(Quantity.POWER_W in fixture.expect for fixture in profile.fixtures)


@each_profile
def test_only_a_real_device_s_power_makes_a_profile_verified(name: str):
    profile = PROFILES[name]
    real = [fixture for fixture in profile.fixtures if "real" in fixture.source and Quantity.POWER_W in fixture.expect]
    if profile.status == "verified" and profile.vendor != "Wattloop":
        assert real


@each_profile
def test_a_three_phase_device_has_no_single_voltage_or_current(name: str):
    for table in tables(PROFILES[name]):
        if any(quantity in table.given() for quantity in PHASE_POWERS):
            assert table.voltage_v is None
            assert table.current_a is None


@each_profile
def test_what_every_register_can_show_is_bounded_in_reason(name: str):
    for register in registers(name):
        if register.quantity is Quantity.ENERGY_J:
            continue
        assert -1e8 <= register.low < register.high <= 1e8


@each_profile
def test_a_request_of_the_limit_s_size_holds_every_value(name: str):
    assert max(needed.count for register in registers(name) for needed in register.needs) <= PROFILES[name].block.max


# What the fixtures show


@each_fixture
async def test_the_words_of_a_fixture_make_its_readings(name: str, index: int):
    profile = PROFILES[name]
    fixture = profile.fixtures[index]
    image = FixtureImage(fixture, profile.function)
    shown = {register.quantity: register for register in await registers_shown(profile, fixture)}
    assert {quantity: shown[quantity].value(image) for quantity in fixture.expect} == {
        quantity: pytest.approx(value, rel=1e-6, abs=1e-9) for quantity, value in fixture.expect.items()
    }


@each_fixture
async def test_a_fixture_with_another_word_order_makes_no_such_readings(name: str, index: int):
    profile = PROFILES[name]
    fixture = profile.fixtures[index]
    image = FixtureImage(fixture, profile.function)
    wide = [
        register
        for register in await registers_shown(profile, fixture)
        if register.quantity in fixture.expect and fixture.expect[register.quantity] and register.count > 1
    ]
    if not wide:
        pytest.skip("its values have one word each")
    for register in wide:
        swapped = replace(register, little=not register.little)
        try:
            value = swapped.value(image)
        except RegisterError:
            continue
        assert value != pytest.approx(fixture.expect[register.quantity], rel=1e-3)


@each_fixture
async def test_identities_and_requirements_hold_where_a_fixture_shows_them(name: str, index: int):
    profile = PROFILES[name]
    device = FixtureDevice(profile, profile.fixtures[index])
    for probe in (*profile.identity, *profile.requirements):
        answer = await ask_probe(probe, device)
        assert answer is None or probe.objection(answer) == ""


# Through the bus, the meter and its checks


def words_served(profile: Profile, fixture: Fixture) -> dict[int, int]:
    """The fixture's words, the answers to the profile's questions, and zeros in between."""
    served = {address + n: word for address, words in fixture.words.items() for n, word in enumerate(words)}
    for config in (*profile.identify, *profile.require):
        if config.expect and config.type != "string":
            served.setdefault(config.address, int(config.expect[0]))
    wanted = {
        address: 0 for start in list(served) for address in range(start - 20, start + 20) if 0 <= address < 0x10000
    }
    return wanted | served


def sim_data(served: dict[int, int]) -> list[SimData]:
    starts = sorted(address for address in served if address - 1 not in served)
    blocks = []
    for start in starts:
        end = start
        while end in served:
            end += 1
        values = [served[address] for address in range(start, end)]
        blocks.append(SimData(start, values=values, datatype=DataType.REGISTERS))
    return blocks


@asynccontextmanager
async def serving(served: dict[int, int]) -> AsyncIterator[int]:
    server = ModbusTcpServer([SimDevice(1, simdata=sim_data(served))], address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def read(one: ModbusMeter, clock: ManualClock) -> Reading:
    """A reading; the pauses that a profile wants pass at once."""
    reading = asyncio.ensure_future(one.read())
    while not reading.done():
        await clock.advance(0.1)
    return reading.result()


def meter(port: int, name: str, clock: ManualClock, **rest: object) -> ModbusMeter:
    config = ModbusMeterConfig(name="m", host="127.0.0.1", port=port, profile=name, timeout_s=2.0, **rest)
    document: Document[ModbusMeterConfig] = Document(Path("agent.yaml"))
    plan = plan_of(config, document, ())
    document.check()
    assert plan is not None
    return ModbusMeter(config, plan, ModbusBuses(clock), clock)


@each_fixture
async def test_a_meter_reads_the_power_of_a_fixture_from_a_server(name: str, index: int):
    profile = PROFILES[name]
    fixture = profile.fixtures[index]
    if Quantity.POWER_W not in fixture.expect:
        pytest.skip("it shows no power")
    clock = ManualClock()
    async with serving(words_served(profile, fixture)) as port:
        outlet = fixture.outlet or (1 if profile.outlets else None)
        one = meter(port, name, clock, outlet=outlet, checks=False)
        await one.open()
        reading = await read(one, clock)
        await one.close()
    assert reading.power_w == pytest.approx(fixture.expect[Quantity.POWER_W], rel=1e-6)
    if Quantity.ENERGY_J in fixture.expect:
        assert reading.energy_j == pytest.approx(fixture.expect[Quantity.ENERGY_J], rel=1e-6)


@pytest.mark.parametrize(("name", "index"), [("eastron-sdm120", 1), ("pzem-004t", 0), ("sunspec-inverter", 0)])
async def test_the_whole_reading_of_a_real_device_passes_all_checks(name: str, index: int):
    profile, clock = PROFILES[name], ManualClock()
    async with serving(words_served(profile, profile.fixtures[index])) as port:
        one = meter(port, name, clock)
        await one.open()
        for _ in range(3):
            reading = await read(one, clock)
            assert (reading.quality, reading.note) == (Quality.GOOD, "")
        await one.close()


# Mistakes that others have made with these devices


def word_at(name: str, quantity: Quantity) -> Register:
    (found,) = [register for register in registers(name) if register.quantity is quantity]
    return found


def test_the_rs485_em24_s_energy_is_the_total_and_not_the_counter_that_users_reset():
    assert word_at("carlo-gavazzi-em24", Quantity.ENERGY_J).address == 0x3E
    fixture = PROFILES["carlo-gavazzi-em24"].fixtures[0]
    image = FixtureImage(fixture, 4)
    assert word_at("carlo-gavazzi-em24", Quantity.ENERGY_J).value(image) > 10 * 999.9 * 3.6e6
    assert list(image.words(4, 0x42, 2)) == [0x270F, 0x0000]  # what the others read


def test_the_pac2200_s_frequency_is_a_whole_value():
    assert word_at("siemens-pac", Quantity.FREQUENCY_HZ).address == 55
    starts = {needed.address for register in registers("siemens-pac") for needed in register.needs}
    assert all(address % 2 == 1 for address in starts)  # 46 would lie across two values


def test_energies_of_the_sdm_family_count_kilowatt_hours():
    for name in shipped():
        if name.startswith("eastron-"):
            assert word_at(name, Quantity.ENERGY_J).factor == pytest.approx(3.6e6)


async def test_the_pac1020_s_first_phase_read_as_its_total_is_suspect():
    """Register 19 is the power of L1 there; a plant's controller took 16.5 kW for 48.5 kW."""
    phases = {f"power_l{n}_w": {"address": 17 + 2 * n, "type": "f32"} for n in (1, 2, 3)}
    table = msgspec.convert({"power_w": {"address": 19, "type": "f32"}} | phases, RegisterTable)
    served = dict.fromkeys(range(60), 0)
    for n, power_w in enumerate((16_500, 16_000, 16_000)):
        served[19 + 2 * n], served[20 + 2 * n] = struct.unpack(">2H", struct.pack(">f", power_w))
    clock = ManualClock()
    async with serving(served) as port:
        config = ModbusMeterConfig(name="m", host="127.0.0.1", port=port, registers=table)
        plan = plan_of(config, Document(Path("agent.yaml")), ())
        assert plan is not None
        one = ModbusMeter(config, plan, ModbusBuses(clock), clock)
        await one.open()
        reading = await read(one, clock)
        await one.close()
    assert reading.quality is Quality.SUSPECT
    assert "one phase read as the total?" in reading.note


def test_victron_voltages_count_tenths():
    """A public test has 23000 for 230.00 V; taken for what the vendor says, that is no voltage."""
    with pytest.raises(RegisterError, match="voltage_l1_v is 2300"):
        word_at("victron-gx-grid", Quantity.VOLTAGE_L1_V).decode([23000])


async def test_an_em24_that_is_set_to_another_application_is_not_read():
    profile = PROFILES["carlo-gavazzi-em24"]
    served, clock = words_served(profile, profile.fixtures[0]) | {0x1101: 3}, ManualClock()
    async with serving(served) as port:
        one = meter(port, "carlo-gavazzi-em24", clock)
        await one.open()
        with pytest.raises(DeviceUnavailable, match="set its application to H"):
            await read(one, clock)
        await one.close()


async def test_the_wrong_model_is_not_read_unless_one_insists():
    profile = PROFILES["carlo-gavazzi-em340"]
    served, clock = words_served(profile, profile.fixtures[0]) | {0x0B: 1650}, ManualClock()
    async with serving(served) as port:
        one = meter(port, "carlo-gavazzi-em340", clock)
        await one.open()
        with pytest.raises(
            DeviceUnavailable, match=r"not a carlo-gavazzi-em340: register 0x000B, function 4 says 1650"
        ):
            await read(one, clock)
        await one.close()
        other = meter(port, "carlo-gavazzi-em340", clock, identify=False, checks=False)
        await other.open()
        assert (await read(other, clock)).power_w == pytest.approx(8234.5)
        await other.close()


@pytest.mark.parametrize(("name", "code"), [("eastron-sdm120", 0x0004), ("eastron-sdm630", 0x1234)])
def test_a_meter_with_a_code_that_no_manual_has_is_read_all_the_same(name: str, code: int):
    (probe,) = PROFILES[name].identity
    assert probe.objection(code) == ""


def test_the_meter_codes_of_the_sdm_family_tell_its_models_apart():
    family = {name: PROFILES[name].identity[0] for name in shipped() if name.startswith("eastron-")}
    for name, probe in family.items():
        for code in DOCUMENTED_CODES.intersection(probe.config.expect):
            assert {other for other, its in family.items() if not its.objection(code)} == {name}


async def test_a_sunspec_device_without_a_meter_says_what_it_has():
    profile = PROFILES["sunspec-meter"]
    assert profile.sunspec is not None
    inverter = PROFILES["sunspec-inverter"]
    models = await walk(FixtureDevice(inverter, inverter.fixtures[0]), profile.sunspec.bases)
    with pytest.raises(WrongDevice, match="its SunSpec models are 1, 103; expected one of 201, 202"):
        choose(profile.sunspec, models, 1)
