"""Meters behind Modbus TCP.

Configuration of an agent::

    meters:
      - name: outlet-1
        kind: modbus
        host: 192.0.2.10
        port: 502
        unit: 1
        profile: wattloop-pdu       # a shipped one's name, or the path of a .yaml file, relative to the configuration
        outlet: 1                   # only where the profile has several
        measures: jetson-1
        timeout_s: 1.0

      - name: rack
        kind: modbus
        host: 192.0.2.11
        registers:                  # instead of a profile
          power_w: {address: 0x34, type: f32, function: 4}
          energy_j: {address: 0x48, type: f32, function: 4, unit: kWh}

Addresses are those on the wire, from 0 (Modbus Application Protocol Specification V1.1b3, 4.4), not the 3xxxx and 4xxxx
numbers of manuals. A reading is the power register, and the energy counter where the table has one, in as few requests
as the device allows; meters behind one host and port share a connection. What is no believable number (NaN, the
device's own "not available", a value out of its register's range by more than 0.5 of the unit), an exception, silence
and a wrong length are no readings: they raise ``DeviceUnavailable`` and name the condition.
"""

from agent.meters.modbus.bus import ModbusBuses
from agent.meters.modbus.config import ModbusMeterConfig, blocks_of
from agent.meters.modbus.meter import ModbusMeter

__all__ = ["ModbusBuses", "ModbusMeter", "ModbusMeterConfig", "blocks_of"]
