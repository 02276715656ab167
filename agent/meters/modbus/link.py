"""One Modbus TCP connection, over pymodbus. Imported when a meter is opened: it costs memory and time.

pymodbus 3.16, left to itself, lets an answer that it cannot decode raise out of the transport (where asyncio prints a
traceback), lets a request wait for its timeout on a connection that is lost, keeps the connection after a timeout (so
that a late answer may pass for the next one), and takes an answer to another function for an answer. Not so here.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from pymodbus.exceptions import ModbusException
from pymodbus.framer import FRAMER_NAME_TO_CLASS, FramerType
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest, ReadDeviceInformationResponse
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest
from pymodbus.transaction import TransactionManager
from pymodbus.transport import CommParams, CommType

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.frames import asked
from agent.meters.modbus.nameplate import BASIC, Nameplate, nameplate
from agent.meters.modbus.nameplate import asked as nameplate_asked
from hil.oserrors import reason

REQUESTS: Final = {3: ReadHoldingRegistersRequest, 4: ReadInputRegistersRequest}

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it dumps frames on errors that we name ourselves


async def connect_tcp(host: str, port: int, timeout_s: float) -> "TcpLink":
    """A new Modbus TCP connection. Raises BusError."""
    transactions = _Transactions(FramerType.SOCKET)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: transactions, host, port)
    except TimeoutError as error:
        raise BusError(f"no connection to {host}:{port} within {timeout_s:g} s") from error
    except OSError as error:
        raise BusError(f"no connection to {host}:{port}: {reason(error)}") from error
    return TcpLink(transactions)


class TcpLink:
    """A connection; one request at a time, matched by its transaction number."""

    matches: Final = True

    def __init__(self, transactions: "_Transactions") -> None:
        self._transactions = transactions

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as this end knows."""
        return self._transactions.is_active()

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words of a block. Raises BusError, Silent or Refused."""
        request = REQUESTS[block.function](address=block.address, count=block.count, dev_id=unit)
        return _words(await self._answer(request, timeout_s), unit, block)

    async def describe(self, unit: int, timeout_s: float) -> Nameplate:
        """What the unit says of itself. Raises BusError, Silent or Refused."""
        request = ReadDeviceInformationRequest(read_code=BASIC, object_id=0, dev_id=unit)
        return _nameplate(await self._answer(request, timeout_s), unit)

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        self._transactions.close()

    async def _answer(self, request: ModbusPDU, timeout_s: float) -> ModbusPDU:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._transactions.ask(request)
        except TimeoutError as error:
            raise Silent(f"no answer from unit {request.dev_id} within {timeout_s:.1f} s") from error
        except ModbusException as error:
            raise BusError(f"an answer that is not to be understood: {error.string}") from error


def _words(answer: ModbusPDU, unit: int, block: Block) -> Sequence[int]:
    if isinstance(answer, ExceptionResponse):
        raise Refused(answer.exception_code, asked(unit, block))
    if answer.function_code != block.function:
        raise BusError(f"an answer to function {answer.function_code} on reading {asked(unit, block)}")
    if len(answer.registers) != block.count:
        raise BusError(f"wrong length: {len(answer.registers)} words on reading {asked(unit, block)}")
    return answer.registers


def _nameplate(answer: ModbusPDU, unit: int) -> Nameplate:
    if isinstance(answer, ExceptionResponse):
        raise Refused(answer.exception_code, nameplate_asked(unit))
    if not isinstance(answer, ReadDeviceInformationResponse):
        raise BusError(f"an answer to function {answer.function_code} on reading {nameplate_asked(unit)}")
    found = answer.information
    return nameplate({number: value for number, value in found.items() if isinstance(value, bytes)})


class _Transactions(TransactionManager):
    """pymodbus's client side, in which whatever ends a request also ends the wait for it."""

    def __init__(self, framer: FramerType) -> None:
        parameters = CommParams(comm_type=CommType.TCP, comm_name="meter", reconnect_delay=0.0)
        super().__init__(parameters, FRAMER_NAME_TO_CLASS[framer](DecodePDU(False)), 0, False, None, None, None)

    async def ask(self, request: ModbusPDU) -> ModbusPDU:
        """The answer to a request, however long it takes. Raises ModbusException."""
        if not self.is_active():
            raise ModbusException("the connection was closed")
        request.transaction_id = self.getNextTID()
        self.response_future = asyncio.get_running_loop().create_future()
        self.pdu_send(request)
        answer: ModbusPDU = await self.response_future
        return answer

    def callback_data(self, data: bytes, addr: tuple[Any, ...] | None = None) -> int:
        """Take what came in."""
        try:
            return super().callback_data(data, addr)
        except ModbusException as error:
            self._end(error)
            return len(data)

    def callback_disconnected(self, exc: Exception | None) -> None:
        """Note the end of the connection."""
        super().callback_disconnected(exc)
        self._end(ModbusException("the connection was closed"))

    def close(self, reconnect: bool = False) -> None:
        """Close the connection, and end the wait for an answer on it."""
        super().close(reconnect)
        self._end(ModbusException("the connection was closed"))

    def _end(self, error: ModbusException) -> None:
        if not self.response_future.done():
            self.response_future.set_exception(error)
            self.response_future.exception()  # seen, even if nobody waits
