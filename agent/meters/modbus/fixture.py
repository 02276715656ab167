"""Fixtures: words that someone else has seen or worked out, and the readings that a profile must make of them."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.table import Function, Unsigned
from hil.yamlfile import Section

Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class Fixture(Section, frozen=True, kw_only=True):
    """``words`` by the address of the first, and the quantities that they make, in canonical units.

    ``source`` names where the words come from: not from what the profile was written from. ``function`` is set where it
    is not the profile's. ``outlet`` is the one whose readings are expected.
    """

    source: str
    words: dict[Unsigned, Annotated[tuple[Word, ...], msgspec.Meta(min_length=1)]]
    expect: dict[Quantity, float]
    function: Function | None = None
    outlet: Annotated[int, msgspec.Meta(ge=1)] | None = None


class FixtureImage:
    """The words of a fixture, as a device would show them."""

    def __init__(self, fixture: Fixture, function: Function) -> None:
        self._function = fixture.function or function
        self._words = {
            address + offset: word for address, words in fixture.words.items() for offset, word in enumerate(words)
        }

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """``count`` words from ``address`` on. Raises LookupError where there are none."""
        if function != self._function:
            raise LookupError(f"the fixture has no registers of function {function}")
        return [self._words[at] for at in range(address, address + count)]
