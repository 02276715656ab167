"""How each kind of endpoint is connected to."""

from agent.meters.modbus.endpoint import Endpoint, SerialEndpoint
from agent.meters.modbus.line import open_converter, open_serial
from agent.meters.modbus.link import connect_tcp
from agent.meters.modbus.request import Link
from agent.meters.modbus.rtu import RtuLink


async def connect(endpoint: Endpoint, timeout_s: float) -> Link:
    """A connection to an endpoint. Raises BusError."""
    if isinstance(endpoint, SerialEndpoint):
        return RtuLink(await open_serial(endpoint))
    if endpoint.framing == "rtu":
        return RtuLink(await open_converter(endpoint, timeout_s))
    return await connect_tcp(endpoint.host, endpoint.port, timeout_s)
