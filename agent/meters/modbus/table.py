"""Register tables, as profiles and configurations write them down."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from agent.meters.modbus.encoding import ByteOrder, NumberType, WordOrder, word_count
from agent.meters.modbus.fixes import FixName
from agent.meters.modbus.quantities import PHASE_CURRENTS, PHASE_POWERS, PHASE_VOLTAGES, TRAITS, Quantity
from agent.meters.modbus.registers import Register, scale_of
from hil.yamlfile import Document, Key, Section

ADDRESSES: Final = 0x10000
CENTURY_S: Final = 3.16e9

Function = Literal[3, 4]
Unsigned = Annotated[int, msgspec.Meta(ge=0)]
Bit = Annotated[int, msgspec.Meta(ge=0, le=15)]
Magnitude = Annotated[float, msgspec.Meta(gt=0)]


class RegisterConfig(Section, frozen=True, kw_only=True):
    """One quantity in a table: value = raw number × ``scale``, in ``unit``.

    ``address`` is the one on the wire, from 0. ``function``, ``word_order`` (big: high word first) and ``byte_order``
    (big: high byte of a word first) default to the table's. ``scale_register`` is the address of a power of ten to
    multiply by. ``bits``: the number is only bits low to high of a word. ``not_available`` lists raw numbers, unsigned,
    by which the device says that it has no value. ``range`` is what the device can show, in the canonical unit.
    ``fix`` names a correction of ``fixes.py``. A ``slow`` register is read only every so often.
    """

    address: Unsigned
    type: NumberType
    function: Function | None = None
    word_order: WordOrder | None = None
    byte_order: ByteOrder | None = None
    unit: str | None = None
    scale: float = 1.0
    scale_register: Unsigned | None = None
    bits: tuple[Bit, Bit] | None = None
    not_available: tuple[Unsigned, ...] = ()
    range: tuple[float, float] | None = None
    fix: FixName | None = None
    slow: bool = False

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise ValueError("expected a scale other than 0")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("expected a range from low to high")
        if (self.bits is None) != (self.type != "bits"):
            raise ValueError("expected bits with type bits, and only there")
        if self.bits is not None and self.bits[0] > self.bits[1]:
            raise ValueError("expected bits from low to high")


class RegisterTable(Section, frozen=True, kw_only=True):
    """The registers of a meter. Power is what makes it one: the total, or that of the phases, to be added up."""

    power_w: RegisterConfig | None = None
    energy_j: RegisterConfig | None = None
    voltage_v: RegisterConfig | None = None
    current_a: RegisterConfig | None = None
    frequency_hz: RegisterConfig | None = None
    power_factor: RegisterConfig | None = None
    apparent_va: RegisterConfig | None = None
    power_l1_w: RegisterConfig | None = None
    power_l2_w: RegisterConfig | None = None
    power_l3_w: RegisterConfig | None = None
    voltage_l1_v: RegisterConfig | None = None
    voltage_l2_v: RegisterConfig | None = None
    voltage_l3_v: RegisterConfig | None = None
    current_l1_a: RegisterConfig | None = None
    current_l2_a: RegisterConfig | None = None
    current_l3_a: RegisterConfig | None = None

    def __post_init__(self) -> None:
        if self.power_w is None and self.power_l1_w is None:
            raise ValueError("expected power_w, or power_l1_w and so on to add up to it")

    def given(self) -> dict[Quantity, RegisterConfig]:
        """The registers that the table has."""
        return {quantity: register for quantity in Quantity if (register := getattr(self, quantity)) is not None}


class Rating(Section, frozen=True, kw_only=True):
    """The largest amounts that a device can show: beyond them, either way, there is no reading but an error.

    A counter shows at most what a century at the largest power would make.
    """

    power_w: Magnitude | None = None
    voltage_v: Magnitude | None = None
    current_a: Magnitude | None = None

    def of(self, quantity: Quantity) -> float | None:
        """The largest amount of a quantity, in its canonical unit; None where it is not known."""
        if quantity in {Quantity.POWER_W, Quantity.APPARENT_VA, *PHASE_POWERS}:
            return self.power_w
        if quantity in {Quantity.VOLTAGE_V, *PHASE_VOLTAGES}:
            return self.voltage_v
        if quantity is Quantity.ENERGY_J:
            return self.power_w * CENTURY_S if self.power_w is not None else None
        return self.current_a if quantity in {Quantity.CURRENT_A, *PHASE_CURRENTS} else None


NO_RATING: Final = Rating()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for all entries of a table that do not say otherwise."""

    function: Function = 3
    word_order: WordOrder = "big"
    byte_order: ByteOrder = "big"
    rating: Rating = NO_RATING


def resolve(table: RegisterTable, defaults: Defaults, offset: int = 0) -> tuple[Register, ...]:
    """The registers that a table describes, ``offset`` words further on; its units must be those of TRAITS."""
    registers = {quantity: _resolved(quantity, entry, defaults, offset) for quantity, entry in table.given().items()}
    if Quantity.POWER_W not in registers:
        parts = tuple(registers[quantity] for quantity in PHASE_POWERS if quantity in registers)
        low, high = _range(Quantity.POWER_W, None, defaults.rating)
        first = parts[0]
        registers[Quantity.POWER_W] = Register(
            Quantity.POWER_W, first.function, first.address, first.type, low=low, high=high, parts=parts
        )
    return tuple(registers.values())


def _resolved(quantity: Quantity, entry: RegisterConfig, defaults: Defaults, offset: int) -> Register:
    function = entry.function or defaults.function
    low, high = _range(quantity, entry.range, defaults.rating)
    scale = scale_of(quantity, function, entry.scale_register + offset) if entry.scale_register is not None else None
    return Register(
        quantity=quantity,
        function=function,
        address=entry.address + offset,
        type=entry.type,
        little=(entry.word_order or defaults.word_order) == "little",
        factor=entry.scale * (TRAITS[quantity].units[entry.unit] if entry.unit is not None else 1.0),
        not_available=frozenset(entry.not_available),
        low=low,
        high=high,
        slow=entry.slow,
        scale=scale,
        low_byte_first=(entry.byte_order or defaults.byte_order) == "little",
        bits=entry.bits,
        fix=entry.fix,
    )


def _range(quantity: Quantity, stated: tuple[float, float] | None, rating: Rating) -> tuple[float, float]:
    if stated is not None:
        return stated
    trait, most = TRAITS[quantity], rating.of(quantity)
    if most is None:
        return trait.low, trait.high
    return (-most if trait.low < 0 else trait.low), most


def check_table(
    table: RegisterTable,
    document: Document[Any],
    key: Key,
    *,
    function: Function,
    reach: int = 0,
    vouched: bool = False,
) -> None:
    """Note in ``document`` units that do not fit and addresses that, ``reach`` words on, cannot be on the wire."""
    for quantity, register in table.given().items():
        at = (*key, str(quantity))
        units = TRAITS[quantity].units
        if register.unit is not None and register.unit not in units:
            document.add((*at, "unit"), register.unit, f"expected one of {', '.join(units)}")
        places = {"address": (register.address, word_count(register.type))}
        if register.scale_register is not None:
            places["scale_register"] = (register.scale_register, 1)
        for name, (address, words) in places.items():
            found = complaint(address, address + words + reach, register.function or function, vouched)
            if found:
                document.add((*at, name), address, found)


def complaint(address: int, end: int, function: int, vouched: bool) -> str | None:
    """What is wrong with an address; manuals number from 1 and put the digit of the kind of register in front."""
    digit = {3: 4, 4: 3}[function]
    for first, count in ((digit * 100_000 + 1, ADDRESSES), (digit * 10_000 + 1, 9_999)):
        possible = end <= ADDRESSES
        if first <= address < first + count and not (vouched and possible):
            unless = "; if it is the one on the wire, say addresses: wire" if possible else ""
            return f"looks like a manual's number, expected the address on the wire: {address - first}?{unless}"
    if end > ADDRESSES:
        return f"expected an address on the wire, 0 to {ADDRESSES - 1} with all of the value's words"
    return None
