"""A Modbus meter in the agent's configuration, and what it comes down to on the bus."""

from typing import Annotated, Any, Final, Literal

import msgspec

from agent.meters.base import MeterConfig
from agent.meters.modbus.endpoint import Endpoint, Framing, SerialConfig, SerialEndpoint, TcpEndpoint
from agent.meters.modbus.examine import Examination, SunSpecExamination
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.plan import Commission, Plan
from agent.meters.modbus.profile import Profile, find, load_or_note, shipped
from agent.meters.modbus.registers import Register
from agent.meters.modbus.sunspec import Model, registers_of
from agent.meters.modbus.table import ADDRESSES, Defaults, RegisterTable, check_table, resolve
from hil.yamlfile import Document, Key

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Unit = Annotated[int, msgspec.Meta(ge=0, le=255)]
Timeout = Annotated[float, msgspec.Meta(ge=0.1, le=10)]

DEFAULT_PORT: Port = 502

SERIAL_UNITS: Final = range(1, 249)
"""On a serial line 0 is everybody's, and 249 and up are nobody's; 248 is the general address of some meters."""


class ModbusMeterConfig(MeterConfig, frozen=True, kw_only=True, tag_field="kind", tag="modbus"):
    """A meter behind Modbus: its ``host`` or its ``serial`` line; its ``profile`` or its ``registers``.

    ``framing`` rtu: the host is a converter that passes the bytes of a serial line on as they are. ``timeout_s`` is set
    only for a device that is slower than its past answers tell. ``checks``: read voltage, current and the like beside
    the power, and hold them against each other. ``identify`` false: read a device even if it says that it is not what
    the profile describes, but, say, its successor. ``outlet`` of a SunSpec device is which of its fitting models.
    """

    host: str | None = None
    port: Port | None = None
    framing: Framing | None = None
    serial: SerialConfig | None = None
    unit: Unit = 1
    profile: str | None = None
    registers: RegisterTable | None = None
    addresses: Literal["wire"] | None = None
    outlet: Annotated[int, msgspec.Meta(ge=1)] | None = None
    timeout_s: Timeout | None = None
    checks: bool = True
    identify: bool = True

    def __post_init__(self) -> None:
        if (self.host is None) == (self.serial is None):
            raise ValueError("expected either host or serial")
        if self.serial is not None and (self.port is not None or self.framing is not None):
            raise ValueError("expected port and framing only with host: a serial line is always RTU")
        if (self.profile is None) == (self.registers is None):
            raise ValueError("expected either profile or registers")
        if (self.serial is not None or self.framing == "rtu") and self.unit not in SERIAL_UNITS:
            raise ValueError("expected a unit from 1 to 247 (248 for some meters) on a serial line")

    @property
    def endpoint(self) -> Endpoint:
        """Where the device is reached."""
        if self.serial is not None:
            return SerialEndpoint(self.serial.port, self.serial.baudrate, self.serial.parity, self.serial.stopbits)
        return TcpEndpoint(self.host or "", self.port or DEFAULT_PORT, self.framing or "socket")


def plan_of(config: ModbusMeterConfig, document: Document[Any], key: Key) -> Plan | None:
    """What to read for one meter; None, and faults noted in ``document`` under ``key``, if there can be no reading.

    Paths of profiles are relative to ``document``.
    """
    if config.registers is not None:
        return _inline_plan(config, config.registers, document, key)
    name = config.profile or ""
    path = find(name, document)
    if path is None:
        known = ", ".join(shipped())
        document.add((*key, "profile"), name, f"expected one of {known}, or the path of a .yaml file")
        return None
    profile = load_or_note(path, document)
    if profile is None or not _outlet_fits(config, profile, document, key):
        return None
    return _profiled_plan(config, profile)


def _profiled_plan(config: ModbusMeterConfig, profile: Profile) -> Plan:
    limits, silence_s, turnaround_s = profile.block, profile.silence_ms / 1000, profile.turnaround_ms / 1000
    registers, commission = _examined(config, profile)
    return Plan(
        registers,
        limits.max,
        limits.gap,
        silence_s,
        turnaround_s,
        checks=frozenset(Check) - frozenset(profile.unchecked) if config.checks else frozenset(),
        commission=commission,
    )


def _examined(config: ModbusMeterConfig, profile: Profile) -> tuple[tuple[Register, ...], Commission | None]:
    """The registers as far as they are known beforehand, and how to learn more from the device."""
    number = config.outlet or 1
    if profile.sunspec is not None:
        somewhere = Model(0, 0, ADDRESSES)
        registers = registers_of(somewhere, profile.sunspec.tables[0].registers, profile.defaults)
        return registers, SunSpecExamination(profile.sunspec, profile.defaults, number)
    if profile.registers is None:
        return (), None
    offset = profile.outlets.stride * (number - 1) if profile.outlets else 0
    registers = resolve(profile.registers, profile.defaults, offset)
    identity, nameplate = (profile.identity, profile.nameplate) if config.identify else ((), None)
    if not (identity or nameplate or profile.requirements):
        return registers, None
    return registers, Examination(profile.profile, nameplate, identity, profile.requirements, registers)


def _inline_plan(config: ModbusMeterConfig, table: RegisterTable, document: Document[Any], key: Key) -> Plan | None:
    noted = len(document.faults)
    vouched = config.addresses == "wire"
    check_table(table, document, (*key, "registers"), function=Defaults().function, vouched=vouched)
    if config.outlet is not None:
        document.add((*key, "outlet"), config.outlet, "expected no outlet: the registers are given")
    if len(document.faults) > noted:
        return None
    return Plan(resolve(table, Defaults()), checks=frozenset(Check) if config.checks else frozenset())


def _outlet_fits(config: ModbusMeterConfig, profile: Profile, document: Document[Any], key: Key) -> bool:
    expected = f"expected 1 to {profile.outlets.count}" if profile.outlets else f"{profile.profile} has no outlets"
    if profile.sunspec is not None:
        fits = True
    elif profile.outlets is None:
        fits = config.outlet is None
    else:
        fits = config.outlet is not None and config.outlet <= profile.outlets.count
    if not fits:
        document.add((*key, "outlet"), "missing" if config.outlet is None else config.outlet, expected)
    return fits
