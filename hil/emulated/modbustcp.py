"""Emulated units behind one Modbus TCP port, served by pymodbus; units that are not there stay silent, as on a bus."""

import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hil.emulated.listen import ListenError
from hil.emulated.pdu import IDENTITY, OUTLETS, STRIDE, EmulatedPdu, Fault

READ_INPUT_REGISTERS = 4

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it dumps frames on every error of a client


class ModbusTcpPort:
    """A listening port and the units behind it, by their unit id. ``refresh`` is called before each answer."""

    def __init__(self, host: str, port: int, units: Mapping[int, EmulatedPdu], refresh: Callable[[], None]) -> None:
        self.host = host
        self.port = port
        self._units = dict(units)
        self._refresh = refresh
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        """Listen; ``port`` then is the actual one. Raises ListenError."""
        devices = [
            SimDevice(unit, _blank_registers(pdu), action=partial(self._answer, pdu))
            for unit, pdu in self._units.items()
        ]
        server = ModbusTcpServer(devices, address=(self.host, self.port), trace_pdu=self._hear)
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:  # pymodbus keeps the reason to itself
            names = ", ".join(pdu.name for pdu in self._units.values())
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
        pdu: EmulatedPdu,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if function != READ_INPUT_REGISTERS or written is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        if pdu.fault is Fault.EXCEPTION:
            return ExcCodes.DEVICE_FAILURE
        self._refresh()
        for outlet in range(_outlet_at(address), _outlet_at(address + count - 1) + 1):
            if outlet >= 1:
                place = OUTLETS + STRIDE * (outlet - 1) - start
                registers[place : place + STRIDE] = pdu.outlet_words(outlet)
        return None


def _outlet_at(address: int) -> int:
    return (address - OUTLETS) // STRIDE + 1


def _blank_registers(pdu: EmulatedPdu) -> list[SimData]:
    identity = SimData(IDENTITY, values=list(pdu.identity_words()), datatype=DataType.REGISTERS)
    outlets = [0] * (STRIDE * pdu.outlet_count)
    return [identity, SimData(OUTLETS, values=outlets, datatype=DataType.REGISTERS)]


def _reason(host: str, port: int) -> OSError:
    try:
        with socket.create_server((host, port)):
            return OSError("taken a moment ago, free again")
    except OSError as error:
        return error
