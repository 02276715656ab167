"""An emulated world in one process: nodes, their journals, PDUs, sysfs trees and the control socket."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from hil.clock import Clock
from hil.emulated.config import EmulationConfig, PduConfig
from hil.emulated.control import ControlServer
from hil.emulated.journal import Journal
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.ready import Place, Ready
from hil.emulated.sysfs import EmulatedPowercap, Tree
from hil.emulated.world import World


class Emulation:
    """What an ``EmulationConfig`` describes, alive between ``start`` and ``stop``.

    ``journals`` are paths by node, ``roots`` the folders of sysfs trees by their names.
    """

    def __init__(
        self, config: EmulationConfig, clock: Clock, journals: dict[str, Path], roots: Mapping[str, Path] | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        nodes = [EmulatedNode(node.name, node.load.demand(), node.traits) for node in config.nodes]
        self._journals = {name: Journal(path) for name, path in journals.items()}
        self.world = World(nodes, clock, self._journals)
        self.pdus = {
            pdu.name: EmulatedPdu(pdu.name, {outlet: self.world.nodes[node] for outlet, node in pdu.outlets.items()})
            for pdu in config.pdus
        }
        self._roots = dict(roots or {})
        self.rapl = {
            tree.name: EmulatedPowercap(tree, Tree(self._roots[tree.name]), self.world.nodes[tree.node])
            for tree in config.rapl
        }
        self.control = ControlServer(config.control.host, config.control.port, self.world, self.pdus, self.rapl)
        self._ports = self._make_ports()
        self._running = AsyncExitStack()

    async def start(self) -> Ready:
        """Listen everywhere. Raises ListenError, JournalError or TreeError, and then nothing is left of it."""
        async with AsyncExitStack() as opening:
            for journal in self._journals.values():
                journal.open()
            for port in dict.fromkeys(self._ports.values()):
                await port.start()
                opening.push_async_callback(port.stop)
            for tree in self.rapl.values():
                tree.begin()
                opening.callback(tree.end)
            await self.control.start()
            opening.push_async_callback(self.control.stop)
            self._running = opening.pop_all()
        return Ready(
            pid=os.getpid(),
            control=Place(host=self.control.host, port=self.control.port),
            pdus={pdu.name: self._place(pdu) for pdu in self._config.pdus},
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

    def _place(self, pdu: PduConfig) -> Place:
        return Place(host=pdu.host, port=self._ports[pdu.name].port, unit=pdu.unit)

    def _make_ports(self) -> dict[str, ModbusTcpPort]:
        """Each PDU's port by its name: PDUs with the same place share one, and each free port is another."""
        sharing: defaultdict[tuple[str, int | str], list[PduConfig]] = defaultdict(list)
        for pdu in self._config.pdus:
            sharing[pdu.host, pdu.port or pdu.name].append(pdu)
        ports: dict[str, ModbusTcpPort] = {}
        for pdus in sharing.values():
            units = {pdu.unit: self.pdus[pdu.name] for pdu in pdus}
            port = ModbusTcpPort(pdus[0].host, pdus[0].port, units, self.world.advance)
            ports.update((pdu.name, port) for pdu in pdus)
        return ports
