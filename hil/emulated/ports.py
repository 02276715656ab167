"""The ports and lines of an emulated world, each with the units that share it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from hil.clock import Clock
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import EmulatedUnit
from hil.emulated.ready import Place, SerialPlace
from hil.emulated.serialline import SerialLine
from hil.emulated.unitconfig import UnitConfig

Port = ModbusTcpPort | SerialLine


class Ports:
    """Every place where units are reached. ``resolve`` makes a path of a link's name."""

    def __init__(
        self,
        units: Mapping[str, EmulatedUnit],
        configs: list[UnitConfig],
        refresh: Callable[[], None],
        clock: Clock,
        resolve: Callable[[str], Path],
    ) -> None:
        self._configs = configs
        self._by_place: dict[str, Port] = {}
        sharing: dict[str, list[UnitConfig]] = {}
        for config in configs:
            sharing.setdefault(config.place, []).append(config)
        for place, sharers in sharing.items():
            first = sharers[0]
            numbered = {config.unit: units[config.name] for config in sharers}
            if first.serial is not None:
                line = SerialLine(resolve(first.serial.link), first.serial.settings, numbered, refresh, clock)
                self._by_place[place] = line
            else:
                port = ModbusTcpPort(first.host, first.port, numbered, refresh, clock, first.framing)
                self._by_place[place] = port

    def all(self) -> list[Port]:
        """The ports and lines, to be started and stopped."""
        return list(self._by_place.values())

    def tcp(self) -> dict[str, Place]:
        """Where the units on ports are reached, by their names."""
        return {
            config.name: Place(host=port.host, port=port.port, unit=config.unit, framing=config.framing)
            for config in self._configs
            if isinstance(port := self._by_place[config.place], ModbusTcpPort)
        }

    def serial(self) -> dict[str, SerialPlace]:
        """Where the units on lines are reached, by their names."""
        return {
            config.name: SerialPlace(link=str(line.link), unit=config.unit)
            for config in self._configs
            if isinstance(line := self._by_place[config.place], SerialLine)
        }
