"""An emulated world in one process: nodes, their journals, Modbus units, sysfs trees and the control socket."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from hil.clock import Clock
from hil.emulated.config import EmulationConfig
from hil.emulated.control import ControlServer
from hil.emulated.journal import Journal
from hil.emulated.modbusunit import EmulatedUnit
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.ports import Ports
from hil.emulated.profileunit import ProfileUnit
from hil.emulated.ready import Place, Ready
from hil.emulated.registermap import load_map
from hil.emulated.sysfs import EmulatedPowercap, Tree
from hil.emulated.world import World


class Emulation:
    """What an ``EmulationConfig`` describes, alive between ``start`` and ``stop``.

    ``journals`` are paths by node, ``roots`` the folders of sysfs trees by their names; ``resolve`` makes paths of the
    names of profiles and links.
    """

    def __init__(
        self,
        config: EmulationConfig,
        clock: Clock,
        journals: dict[str, Path],
        roots: Mapping[str, Path] | None = None,
        resolve: Callable[[str], Path] = Path,
    ) -> None:
        self._config = config
        self._clock = clock
        nodes = [EmulatedNode(node.name, node.load.demand(), node.traits) for node in config.nodes]
        self._journals = {name: Journal(path) for name, path in journals.items()}
        self.world = World(nodes, clock, self._journals)
        self.units: dict[str, EmulatedUnit] = {
            pdu.name: EmulatedPdu(pdu.name, self._nodes(pdu.outlets)) for pdu in config.pdus
        }
        for unit in config.units:
            registers = load_map(resolve(unit.profile))
            self.units[unit.name] = ProfileUnit(unit.name, self._nodes(unit.feeds), registers)
        self._roots = dict(roots or {})
        self.rapl = {
            tree.name: EmulatedPowercap(tree, Tree(self._roots[tree.name]), self.world.nodes[tree.node])
            for tree in config.rapl
        }
        self.control = ControlServer(config.control.host, config.control.port, self.world, self.units, self.rapl)
        self._ports = Ports(self.units, [*config.pdus, *config.units], self.world.advance, clock, resolve)
        self._running = AsyncExitStack()

    async def start(self) -> Ready:
        """Listen everywhere. Raises ListenError, JournalError or TreeError, and then nothing is left of it."""
        async with AsyncExitStack() as opening:
            for journal in self._journals.values():
                journal.open()
            for port in self._ports.all():
                await port.start()
                opening.push_async_callback(port.stop)
            for tree in self.rapl.values():
                tree.begin()
                opening.callback(tree.end)
            await self.control.start()
            opening.push_async_callback(self.control.stop)
            self._running = opening.pop_all()
        places, pdus = self._ports.tcp(), {pdu.name for pdu in self._config.pdus}
        return Ready(
            pid=os.getpid(),
            control=Place(host=self.control.host, port=self.control.port),
            pdus={name: place for name, place in places.items() if name in pdus},
            units={name: place for name, place in places.items() if name not in pdus},
            serial=self._ports.serial(),
            journals={name: str(journal.path) for name, journal in self._journals.items()},
            rapl={name: str(root) for name, root in self._roots.items()},
        )

    async def run_until(self, stop: asyncio.Event) -> None:
        """Let time pass until ``stop`` is set. Raises JournalError."""
        stopping = asyncio.create_task(stop.wait(), name="wait for stop")
        living = [asyncio.create_task(self.world.run(), name="emulated world")]
        living += [asyncio.create_task(tree.run(self.world.advance, self._clock)) for tree in self.rapl.values()]
        await asyncio.wait({*living, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *living):
            task.cancel()
        for task in living:
            with suppress(asyncio.CancelledError):
                await task

    async def stop(self) -> None:
        """Close every port and remove every tree; harmless when repeated."""
        await self._running.aclose()

    def _nodes(self, feeds: Mapping[int, str]) -> dict[int, EmulatedNode]:
        return {outlet: self.world.nodes[node] for outlet, node in feeds.items()}
