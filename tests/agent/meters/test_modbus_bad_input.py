"""What goes wrong on real buses: whatever it is, no wrong number may come out marked good.

An emulated device shows a node through a profile; the agent reads it through that profile with one thing wrong.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from hil.clock import ManualClock, SystemClock
from hil.devices import DeviceUnavailable, Quality, Reading
from hil.emulated.electrical import Quantity
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.profileunit import ProfileUnit
from hil.emulated.registermap import load_map
from hil.emulated.serialline import LineSettings, SerialLine
from hil.emulated.world import World
from hil.yamlfile import Document

Table = dict[str, Any]

HEAD = {"profile": "p", "vendor": "v", "model": "m", "status": "guess", "source": "s"}

FLOATS: Table = {  # as the single-phase meters of several makers have it
    "function": 4,
    "block": {"max": 80, "gap": 40},
    "registers": {
        "voltage_v": {"address": 0, "type": "f32"},
        "current_a": {"address": 6, "type": "f32"},
        "power_w": {"address": 12, "type": "f32"},
        "power_factor": {"address": 30, "type": "f32"},
        "energy_j": {"address": 36, "type": "f32", "unit": "kWh"},
    },
}
INTEGERS: Table = {  # low word first, in tenths and thousandths
    "word_order": "little",
    "block": {"max": 40, "gap": 20},
    "registers": {
        "voltage_v": {"address": 0, "type": "u16", "scale": 0.1},
        "current_a": {"address": 1, "type": "u32", "scale": 0.001},
        "power_w": {"address": 3, "type": "u32", "scale": 0.1},
        "energy_j": {"address": 5, "type": "u32", "unit": "Wh"},
        "power_factor": {"address": 8, "type": "u16", "scale": 0.01},
    },
}
PHASES: Table = {
    "block": {"max": 100, "gap": 40},
    "registers": {
        **{f"voltage_l{n}_v": {"address": 2 * n, "type": "f32"} for n in (1, 2, 3)},
        **{f"current_l{n}_a": {"address": 10 + 2 * n, "type": "f32"} for n in (1, 2, 3)},
        **{f"power_l{n}_w": {"address": 20 + 2 * n, "type": "f32"} for n in (1, 2, 3)},
        "power_w": {"address": 28, "type": "f32"},
        "power_factor": {"address": 32, "type": "f32"},
        "energy_j": {"address": 36, "type": "u64", "unit": "Wh"},
    },
}
TABLES = {"floats": FLOATS, "integers": INTEGERS, "phases": PHASES}


def save(folder: Path, name: str, table: Table) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(HEAD | table))
    return path


def changed(table: Table, *quantities: str, **changes: Any) -> Table:
    """The table with ``changes`` to some of its registers, or to all; ``shift`` moves them."""
    shift = changes.pop("shift", 0)
    registers = {}
    for quantity, entry in table["registers"].items():
        if quantities and quantity not in quantities:
            registers[quantity] = entry
        else:
            registers[quantity] = entry | changes | {"address": max(0, entry["address"] + shift)}
    return table | {"registers": registers}


def opposite(table: Table) -> str:
    return "big" if table.get("word_order") == "little" else "little"


class Bench:
    """A node behind a unit with the right table, and a meter with another."""

    def __init__(self, folder: Path, table: Table, power_w: float) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.node = EmulatedNode("n", ConstantLoad(power_w=power_w).demand())
        self.node.advance(1000.0)  # so that the counter holds something
        self.world = World([self.node], self.clock)
        self.unit = ProfileUnit("u", {1: self.node}, load_map(save(folder, "right", table)))
        self.port = ModbusTcpPort("127.0.0.1", 0, {1: self.unit}, self.world.advance, SystemClock())

    @asynccontextmanager
    async def meter(self, table: Table, **changes: Any) -> AsyncIterator[ModbusMeter]:
        profile = str(save(self.folder, "read", table))
        place = {"host": "127.0.0.1", "port": self.port.port}
        one = make({"profile": profile} | place | changes, self.clock)
        await one.open()
        yield one
        await one.close()

    async def readings(self, one: ModbusMeter, count: int = 12) -> list[Reading | str]:
        found: list[Reading | str] = []
        for _ in range(count):
            await self.clock.advance(1.0)
            try:
                found.append(await one.read())
            except DeviceUnavailable as error:
                found.append(error.what)
        return found


def make(options: dict[str, Any], clock: ManualClock | SystemClock) -> ModbusMeter:
    config = msgspec.convert({"name": "m", "kind": "modbus", "timeout_s": 0.2} | options, ModbusMeterConfig)
    document: Document[Any] = Document(Path("agent.yaml"))
    plan = plan_of(config, document, ())
    document.check()
    assert plan is not None
    return ModbusMeter(config, plan, ModbusBuses(clock), clock)


@asynccontextmanager
async def bench_of(folder: Path, table: Table, power_w: float = 15.0) -> AsyncIterator[Bench]:
    bench = Bench(folder, table, power_w)
    await bench.port.start()
    try:
        yield bench
    finally:
        await bench.port.stop()


def lies(readings: list[Reading | str], power_w: float) -> list[Reading]:
    """Readings that are marked good and are not."""
    return [
        reading
        for reading in readings
        if isinstance(reading, Reading)
        and reading.quality is Quality.GOOD
        and reading.power_w != pytest.approx(power_w, rel=0.1, abs=3.0)
    ]


MISTAKES = {
    "power word order": lambda table: changed(table, "power_w", word_order=opposite(table)),
    "all word orders": lambda table: changed(table, word_order=opposite(table)),
    "power address + 1": lambda table: changed(table, "power_w", shift=1),
    "power address - 1": lambda table: changed(table, "power_w", shift=-1),
    "all addresses + 1": lambda table: changed(table, shift=1),
    "all addresses - 1": lambda table: changed(table, shift=-1),
    "kW for W": lambda table: changed(table, "power_w", unit="kW"),
    "W for kW": lambda table: changed(table, "power_w", unit="mW"),
    "half the words": lambda table: changed(table, "power_w", type="u16"),
    "signed for float": lambda table: changed(table, "power_w", type="i32"),
    "another quantity": lambda table: changed(table, "power_w", shift=-6),
}


@pytest.mark.parametrize("power_w", [15.0, 14.93, 400.0])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("table", TABLES)
async def test_a_wrong_table_never_yields_a_wrong_power_marked_good(
    tmp_path: Path, table: str, mistake: str, power_w: float
):
    right = TABLES[table]
    async with bench_of(tmp_path, right, power_w) as bench, bench.meter(MISTAKES[mistake](right)) as one:
        readings = await bench.readings(one, 4)
    assert lies(readings, power_w) == []
    assert all(reading.note for reading in readings if isinstance(reading, Reading) and reading.quality != "good")


@pytest.mark.parametrize("power_w", [0.0, 3.0, 15.0, 2000.0])
@pytest.mark.parametrize("table", TABLES)
async def test_the_right_table_yields_good_readings(tmp_path: Path, table: str, power_w: float):
    async with bench_of(tmp_path, TABLES[table], power_w) as bench, bench.meter(TABLES[table]) as one:
        for reading in await bench.readings(one, 6):
            assert isinstance(reading, Reading)
            assert (reading.quality, reading.note) == (Quality.GOOD, "")
            assert reading.power_w == pytest.approx(power_w, abs=0.05)


@pytest.mark.parametrize(
    ("table", "mistake", "cause"),
    [
        ("floats", "power word order", "wrong word order"),
        ("floats", "all word orders", "wrong word order"),
        ("integers", "power word order", "wrong word order"),
        ("phases", "all word orders", "wrong word order"),
        ("floats", "kW for W", "off by a factor of 1000"),
        ("integers", "W for kW", "off by a factor of 1000"),
        ("phases", "kW for W", "off by a factor of 1000"),
    ],
)
async def test_the_likely_cause_stands_in_the_note(tmp_path: Path, table: str, mistake: str, cause: str):
    right = TABLES[table]
    async with bench_of(tmp_path, right, 15.0) as bench, bench.meter(MISTAKES[mistake](right)) as one:
        readings = await bench.readings(one)
    assert all(isinstance(reading, Reading) and cause in reading.note for reading in readings), readings


async def test_words_in_the_wrong_order_that_make_no_power_at_all_are_named(tmp_path: Path):
    wrong = changed(FLOATS, "power_w", word_order="little")
    async with bench_of(tmp_path, FLOATS, 14.93) as bench, bench.meter(wrong) as one:
        first, *_ = await bench.readings(one)
    assert str(first).startswith("power_w is ")
    assert str(first).endswith("possible are -1e+06 to 1e+06: wrong word order?")


async def test_one_phase_read_as_the_total_is_named(tmp_path: Path):
    async with bench_of(tmp_path, PHASES, 300.0) as bench, bench.meter(changed(PHASES, "power_w", shift=-6)) as one:
        (first, *_) = await bench.readings(one)
    assert isinstance(first, Reading)
    assert (first.power_w, first.quality) == (pytest.approx(100.0), Quality.SUSPECT)
    assert "one phase read as the total" in first.note


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.EXCEPTION, Fault.NAN, Fault.GARBAGE])
@pytest.mark.parametrize("table", TABLES)
async def test_a_faulty_device_never_yields_a_wrong_power_marked_good(tmp_path: Path, table: str, fault: Fault):
    async with bench_of(tmp_path, TABLES[table]) as bench, bench.meter(TABLES[table]) as one:
        await bench.readings(one, 5)
        bench.unit.fault = fault
        readings = await bench.readings(one, 30)
        if fault is Fault.NAN and table == "integers":  # where NaN is 0: the device says nothing of it
            return
        assert lies(readings[:-3], 15.0) == []
        bench.unit.fault = None
        await bench.clock.advance(600.0)
        recovered = await bench.readings(one, 10)
    assert isinstance(recovered[-1], Reading)
    assert recovered[-1].quality is Quality.GOOD


async def test_a_wrong_unit_is_named(tmp_path: Path):
    async with bench_of(tmp_path, FLOATS) as bench, bench.meter(FLOATS, unit=2) as one:
        assert (await bench.readings(one, 2))[0] == "no answer from unit 2 within 0.2 s"


async def test_a_counter_that_goes_back_is_named_and_its_value_held_back(tmp_path: Path):
    async with bench_of(tmp_path, FLOATS, 400.0) as bench, bench.meter(FLOATS) as one:
        await bench.readings(one, 5)
        bench.unit.override(1, Quantity.ENERGY_J, 36_000.0)
        first, second, third = await bench.readings(one, 3)
        assert isinstance(first, Reading)
        assert isinstance(second, Reading)
        assert isinstance(third, Reading)
        assert (first.power_w, first.energy_j, first.quality) == (400.0, None, Quality.SUSPECT)
        assert "energy fell from 111.6 Wh to 10 Wh: a reset, another device, a partial counter?" in first.note
        assert second.energy_j == pytest.approx(36_000.0)
        assert third.quality is Quality.GOOD


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[tuple[ProfileUnit, dict[str, Any]]]:
    """A device on a serial line, and how an agent reaches it."""
    node = EmulatedNode("n", ConstantLoad(power_w=15.0).demand())
    path = save(tmp_path, "right", FLOATS)
    unit = ProfileUnit("u", {1: node}, load_map(path))
    settings = LineSettings(115_200, turnaround_s=0.0)
    line = SerialLine(tmp_path / "tty", settings, {5: unit}, lambda: None, SystemClock())
    await line.start()
    serial = {"port": str(tmp_path / "tty"), "baudrate": 115_200}
    yield unit, {"profile": str(path), "serial": serial, "unit": 5}
    await line.stop()


async def outcomes(options: dict[str, Any], count: int) -> list[Reading | str]:
    one = make(options, SystemClock())
    await one.open()
    found: list[Reading | str] = []
    for _ in range(count):
        try:
            found.append(await one.read())
        except DeviceUnavailable as error:
            found.append(error.what)
    await one.close()
    return found


async def test_a_serial_line_works(line: tuple[ProfileUnit, dict[str, Any]]):
    for reading in await outcomes(line[1], 3):
        assert isinstance(reading, Reading)
        assert (reading.power_w, reading.quality) == (15.0, Quality.GOOD)


async def test_a_wrong_baud_rate_is_no_answer(line: tuple[ProfileUnit, dict[str, Any]]):
    _, options = line
    options["serial"]["baudrate"] = 9600
    assert await outcomes(options, 1) == ["no answer from unit 5 within 0.3 s"]


async def test_damaged_answers_are_named(line: tuple[ProfileUnit, dict[str, Any]]):
    unit, options = line
    unit.fault = Fault.DAMAGED
    assert all("a damaged answer (CRC error)" in str(one) for one in await outcomes(options, 5))


async def test_late_answers_are_nobody_s(line: tuple[ProfileUnit, dict[str, Any]]):
    """Power and energy of one device by two meters, each a request of two words, always late by a while."""
    unit, options = line
    registers = {
        "first": {"power_w": {"address": 12, "type": "f32", "function": 4}},
        "second": {"power_w": {"address": 0, "type": "f32", "function": 4}},  # the voltage, as a power
    }
    clock = SystemClock()
    buses = ModbusBuses(clock)
    meters = []
    for name, table in registers.items():
        serial = {"serial": options["serial"], "unit": 5, "registers": table, "timeout_s": 0.1}
        config = msgspec.convert({"name": name, "kind": "modbus"} | serial, ModbusMeterConfig)
        plan = plan_of(config, Document(Path("agent.yaml")), ())
        assert plan is not None
        meters.append(ModbusMeter(config, plan, buses, clock))
    for one in meters:
        await one.open()
    unit.delay_s = 0.12
    for _ in range(3):
        for one, expected in zip(meters, (15.0, 230.0), strict=True):
            try:
                assert (await one.read()).power_w == expected
            except DeviceUnavailable:
                await asyncio.sleep(0.02)
    for one in meters:
        await one.close()
