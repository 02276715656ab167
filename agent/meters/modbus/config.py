"""A Modbus meter in the agent's configuration, and the reads that it comes down to."""

from typing import Annotated, Any, Literal

import msgspec

from agent.meters.base import MeterConfig
from agent.meters.modbus.blocks import Block, merge
from agent.meters.modbus.profile import BlockLimits, Profile, check_table, find, load_or_note, shipped
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Function, RegisterTable, WordOrder, resolve
from hil.yamlfile import Document, Key

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Unit = Annotated[int, msgspec.Meta(ge=0, le=255)]
Timeout = Annotated[float, msgspec.Meta(ge=0.1, le=10)]

READ: tuple[Quantity, ...] = (Quantity.POWER_W, Quantity.ENERGY_J)
"""What a reading is made of."""

INLINE_FUNCTION: Function = 3
INLINE_WORD_ORDER: WordOrder = "big"


class ModbusMeterConfig(MeterConfig, frozen=True, kw_only=True, tag_field="kind", tag="modbus"):
    """A meter behind Modbus TCP: its ``profile`` (a shipped one's name, or a file), or its ``registers``."""

    host: str = "127.0.0.1"
    port: Port = 502
    unit: Unit = 1
    profile: str | None = None
    registers: RegisterTable | None = None
    addresses: Literal["wire"] | None = None
    outlet: Annotated[int, msgspec.Meta(ge=1)] | None = None
    timeout_s: Timeout = 1.0

    def __post_init__(self) -> None:
        if (self.profile is None) == (self.registers is None):
            raise ValueError("expected either profile or registers")


def blocks_of(config: ModbusMeterConfig, document: Document[Any], key: Key) -> tuple[Block, ...]:
    """The requests that make one reading; none, and faults noted in ``document`` under ``key``, if there can be none.

    Paths of profiles are relative to ``document``.
    """
    if config.registers is not None:
        return _inline_blocks(config, config.registers, document, key)
    name = config.profile or ""
    path = find(name, document)
    if path is None:
        known = ", ".join(shipped())
        document.add((*key, "profile"), name, f"expected one of {known}, or the path of a .yaml file")
        return ()
    profile = load_or_note(path, document)
    if profile is None or not _outlet_fits(config, profile, document, key):
        return ()
    offset = profile.outlets.stride * (config.outlet - 1) if profile.outlets and config.outlet else 0
    return _blocks(profile.registers, profile.function, profile.word_order, profile.block, offset)


def _inline_blocks(
    config: ModbusMeterConfig, table: RegisterTable, document: Document[Any], key: Key
) -> tuple[Block, ...]:
    noted = len(document.faults)
    vouched = config.addresses == "wire"
    check_table(table, document, (*key, "registers"), function=INLINE_FUNCTION, vouched=vouched)
    if config.outlet is not None:
        document.add((*key, "outlet"), config.outlet, "expected no outlet: the registers are given")
    if len(document.faults) > noted:
        return ()
    return _blocks(table, INLINE_FUNCTION, INLINE_WORD_ORDER, BlockLimits(), 0)


def _blocks(
    table: RegisterTable, function: Function, word_order: WordOrder, limits: BlockLimits, offset: int
) -> tuple[Block, ...]:
    registers = [
        resolve(quantity, register, function, word_order, offset)
        for quantity, register in table.given().items()
        if quantity in READ
    ]
    return merge(registers, limits.max, limits.gap)


def _outlet_fits(config: ModbusMeterConfig, profile: Profile, document: Document[Any], key: Key) -> bool:
    expected = f"expected 1 to {profile.outlets.count}" if profile.outlets else f"{profile.profile} has no outlets"
    if profile.outlets is None:
        fits = config.outlet is None
    else:
        fits = config.outlet is not None and config.outlet <= profile.outlets.count
    if not fits:
        document.add((*key, "outlet"), "missing" if config.outlet is None else config.outlet, expected)
    return fits
