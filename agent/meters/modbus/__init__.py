"""Meters behind Modbus TCP, RTU on a serial line, and RTU behind a TCP converter.

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

      - name: rack
        kind: modbus
        serial: {port: /dev/ttyUSB0, baudrate: 9600, parity: N, stopbits: 1}
        unit: 5
        registers:                  # instead of a profile
          power_w: {address: 0x34, type: f32, function: 4}
          energy_j: {address: 0x48, type: f32, function: 4, unit: kWh}

      - name: cellar
        kind: modbus
        host: 192.0.2.11            # a converter that passes the bytes of a serial line on as they are
        port: 4196
        framing: rtu
        profile: wattloop-pdu
        outlet: 2
        timeout_s: 1.5              # otherwise a multiple of what the unit took for earlier answers, 0.3 to 2 s
        checks: false               # do not hold power against voltage, current and the energy counter

Addresses are those on the wire, from 0 (Modbus Application Protocol Specification V1.1b3, 4.4), not the 3xxxx and 4xxxx
numbers of manuals. A reading is the power register, and the energy counter where the table has one, in as few requests
as the device allows. Meters behind one host and port, or on one serial port, share it: one request at a time, each unit
with its own back-off. What is no believable number (NaN, the device's own "not available", a value well out of its
register's range), an exception, silence and a damaged answer are no readings: they raise ``DeviceUnavailable`` and name
the condition. A number that the device's other registers contradict is a reading of quality ``suspect``, with the
likely cause in its note.
"""

from agent.meters.modbus.bus import ModbusBuses
from agent.meters.modbus.config import ModbusMeterConfig, plan_of
from agent.meters.modbus.meter import ModbusMeter
from agent.meters.modbus.timetable import Booking, check_lines

__all__ = ["Booking", "ModbusBuses", "ModbusMeter", "ModbusMeterConfig", "check_lines", "plan_of"]
