"""A unit that shows nodes through the registers of a real device."""

from collections.abc import Mapping, Sequence

from hil.emulated.modbusunit import ILLEGAL_ADDRESS, ILLEGAL_VALUE, EmulatedUnit, Refusal
from hil.emulated.node import EmulatedNode
from hil.emulated.registermap import RegisterMap


class ProfileUnit(EmulatedUnit):
    """A unit with the registers of ``map``."""

    def __init__(self, name: str, outlets: Mapping[int, EmulatedNode], map_: RegisterMap) -> None:
        super().__init__(name, outlets, map_.quantities)
        self._map = map_

    @property
    def spans(self) -> Sequence[range]:
        """The addresses of the map, those of both functions together."""
        spans: list[range] = []
        for address in sorted({address for _, address in self._map.places}):
            if spans and spans[-1].stop == address:
                spans[-1] = range(spans[-1].start, address + 1)
            else:
                spans.append(range(address, address + 1))
        return spans

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """What stands there now. Raises Refusal."""
        if count > self._map.max_words:
            raise Refusal(ILLEGAL_VALUE)
        asked = [(function, at) for at in range(address, address + count)]
        if not self._map.places.issuperset(asked):
            raise Refusal(ILLEGAL_ADDRESS)
        words = self._map.words({outlet: self.values(outlet) for outlet in range(1, self.outlet_count + 1)})
        return [words.get(place, 0) for place in asked]
