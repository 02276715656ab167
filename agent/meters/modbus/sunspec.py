"""SunSpec devices: their registers lie wherever a chain of models puts them.

The chain begins with ``SunS`` at 40000, 0 or 50000; each model after it with its number and its length in words; 0xFFFF
ends it (SunSpec Device Information Model Specification V1.1, 4). A profile gives tables for models, with addresses that
count from a model's number:

.. code-block:: yaml

    sunspec:
      tables:
        - models: [201, 202, 203, 204]
          registers:
            power_w: {address: 18, type: i16, scale_register: 22, not_available: [0x8000]}
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import Refused, WrongDevice
from agent.meters.modbus.plan import Ask
from agent.meters.modbus.registers import Register
from agent.meters.modbus.table import ADDRESSES, Defaults, RegisterTable, Unsigned, resolve
from hil.yamlfile import Section

MARK: Final = (0x5375, 0x6E53)
END: Final = 0xFFFF
HEAD_WORDS: Final = 2
MOST_MODELS: Final = 100
READ_HOLDING: Final = 3

Address = Annotated[int, msgspec.Meta(ge=0, le=ADDRESSES - HEAD_WORDS)]


class ModelTable(Section, frozen=True, kw_only=True):
    """The registers of some models that are laid out alike."""

    models: Annotated[tuple[Unsigned, ...], msgspec.Meta(min_length=1)]
    registers: RegisterTable


class SunSpecConfig(Section, frozen=True, kw_only=True):
    """Where a chain may begin, and the tables of its models; the first model of the chain that has one is read."""

    bases: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1)] = (40000, 0, 50000)
    tables: Annotated[tuple[ModelTable, ...], msgspec.Meta(min_length=1)]

    def table_of(self, model: int) -> RegisterTable | None:
        """The registers of a model; None where there is no table for it."""
        return next((table.registers for table in self.tables if model in table.models), None)

    @property
    def models(self) -> tuple[int, ...]:
        """The models that there are tables for."""
        return tuple(model for table in self.tables for model in table.models)


@dataclass(frozen=True, slots=True)
class Model:
    """A model in a device's chain: its number, the address of that number, and the words that follow its length."""

    number: int
    address: int
    length: int

    @property
    def end(self) -> int:
        """The address after it."""
        return self.address + HEAD_WORDS + self.length


async def walk(ask: Ask, bases: Sequence[int]) -> tuple[Model, ...]:
    """The models of a device, in their order. Raises WrongDevice where no chain begins, BusError where words fail."""
    for base in bases:
        if await _words(ask, base) == MARK:
            return tuple([model async for model in _chain(ask, base + len(MARK))])
    raise WrongDevice(f"no SunSpec device: nothing begins at {' or '.join(map(str, bases))}")


def fitting(config: SunSpecConfig, models: Iterable[Model]) -> list[tuple[Model, RegisterTable]]:
    """Those of a device's models that there is a table for."""
    return [(model, table) for model in models if (table := config.table_of(model.number)) is not None]


def choose(config: SunSpecConfig, models: Sequence[Model], nth: int) -> tuple[Model, RegisterTable]:
    """The ``nth`` model, from 1, that there is a table for. Raises WrongDevice."""
    usable = fitting(config, models)
    if len(usable) < nth:
        found = ", ".join(str(model.number) for model in models) or "none"
        which = f"{nth} of " if nth > 1 else "one of "
        raise WrongDevice(f"its SunSpec models are {found}; expected {which}{', '.join(map(str, config.models))}")
    return usable[nth - 1]


def registers_of(model: Model, table: RegisterTable, defaults: Defaults) -> tuple[Register, ...]:
    """The registers of a model as this device has it: a short one lacks the last of them."""
    registers = resolve(table, defaults, model.address)
    return tuple(register for register in registers if all(needed.end <= model.end for needed in register.needs))


async def _chain(ask: Ask, address: int) -> AsyncIterator[Model]:
    for _ in range(MOST_MODELS):
        if address > ADDRESSES - HEAD_WORDS:
            return
        head = await _words(ask, address)
        model = Model(head[0], address, head[1]) if head else None
        if model is None or model.number == END or model.end > ADDRESSES:
            return
        yield model
        address = model.end


async def _words(ask: Ask, address: int) -> tuple[int, ...]:
    """Two words, or none where the device has no such address."""
    try:
        return tuple(await ask.read(Block(READ_HOLDING, address, HEAD_WORDS)))
    except Refused as error:
        if error.unreachable:
            raise
        return ()
