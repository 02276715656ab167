"""Emulated units behind one TCP port, served by pymodbus; units that are not there stay silent, as on a bus."""

import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hil.clock import Clock
from hil.emulated.listen import ListenError
from hil.emulated.modbusunit import EmulatedUnit, Fault, Refusal

Framing = Literal["socket", "rtu"]
"""Modbus TCP, or the frames of a serial line as a converter passes them on."""

FRAMERS: Final = {"socket": FramerType.SOCKET, "rtu": FramerType.RTU}

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it dumps frames on every error of a client


class ModbusTcpPort:
    """A listening port and the units behind it, by their unit id. ``refresh`` is called before each answer."""

    def __init__(
        self,
        host: str,
        port: int,
        units: Mapping[int, EmulatedUnit],
        refresh: Callable[[], None],
        clock: Clock,
        framing: Framing = "socket",
    ) -> None:
        self.host = host
        self.port = port
        self._units = dict(units)
        self._refresh = refresh
        self._clock = clock
        self._framer = FRAMERS[framing]
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        """Listen; ``port`` then is the actual one. Raises ListenError."""
        devices = [
            SimDevice(number, _blank_registers(unit), action=partial(self._answer, unit))
            for number, unit in self._units.items()
        ]
        address = (self.host, self.port)
        server = ModbusTcpServer(devices, framer=self._framer, address=address, trace_pdu=self._hear)
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:  # pymodbus keeps the reason to itself
            names = ", ".join(unit.name for unit in self._units.values())
            raise ListenError(names, self.host, self.port, _reason(self.host, self.port)) from error
        self._server = server
        self.port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # it is a Server

    async def stop(self) -> None:
        """Close the port and all its connections; harmless when repeated."""
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]
            self._server = None

    def _hear(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        unit = self._units.get(pdu.dev_id)
        if sending or (unit is not None and unit.fault is not Fault.SILENT):
            return pdu
        return None  # type: ignore[return-value]  # pymodbus forgets a request whose trace yields nothing

    async def _answer(
        self,
        unit: EmulatedUnit,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if written is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        if unit.delay_s:
            await self._clock.sleep_until(self._clock.monotonic() + unit.delay_s)
        self._refresh()
        try:
            registers[address - start : address - start + count] = unit.answer(function, address, count)
        except Refusal as refusal:
            return ExcCodes(refusal.code)
        return None


def _blank_registers(unit: EmulatedUnit) -> list[SimData]:
    return [SimData(span.start, values=[0] * len(span), datatype=DataType.REGISTERS) for span in unit.spans]


def _reason(host: str, port: int) -> OSError:
    try:
        with socket.create_server((host, port)):
            return OSError("taken a moment ago, free again")
    except OSError as error:
        return error
