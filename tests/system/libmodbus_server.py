"""A Modbus server on libmodbus, by its C interface: no line of ours, and none of pymodbus, between registers and wire.

Usage: libmodbus_server.py tcp PORT | rtu DEVICE, then UNIT and ADDRESS=VALUE…, the addresses as on the wire. The values
are put into input registers as 32-bit floats, high word first (not by the function of libmodbus for it, which in 3.1.6
swaps the bytes of each word). It says ``ready`` and serves until it is killed; over TCP one connection after another.
"""

import ctypes
import ctypes.util
import struct
import sys

MAX_ADU = 260


class Mapping(ctypes.Structure):
    """modbus_mapping_t."""

    _fields_ = (
        ("nb_bits", ctypes.c_int),
        ("start_bits", ctypes.c_int),
        ("nb_input_bits", ctypes.c_int),
        ("start_input_bits", ctypes.c_int),
        ("nb_input_registers", ctypes.c_int),
        ("start_input_registers", ctypes.c_int),
        ("nb_registers", ctypes.c_int),
        ("start_registers", ctypes.c_int),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    )


def load() -> ctypes.CDLL:
    """libmodbus, with the types that matter."""
    library = ctypes.CDLL(ctypes.util.find_library("modbus") or "libmodbus.so.5", use_errno=True)
    library.modbus_new_tcp.restype = library.modbus_new_rtu.restype = ctypes.c_void_p
    library.modbus_new_tcp.argtypes = (ctypes.c_char_p, ctypes.c_int)
    library.modbus_new_rtu.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int)
    library.modbus_mapping_new.restype = ctypes.POINTER(Mapping)
    library.modbus_connect.argtypes = (ctypes.c_void_p,)
    library.modbus_set_slave.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.modbus_tcp_listen.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.modbus_tcp_accept.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    library.modbus_receive.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    library.modbus_reply.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(Mapping))
    return library


def main() -> None:
    """Serve."""
    kind, place, unit, *settings = sys.argv[1:]
    library = load()
    values = {int(address, 0): float(value) for address, value in (setting.split("=") for setting in settings)}
    mapping = library.modbus_mapping_new(0, 0, 0, max(values) + 2)
    for address, value in values.items():
        for offset, word in enumerate(struct.unpack(">2H", struct.pack(">f", value))):
            mapping.contents.tab_input_registers[address + offset] = word
    listening = ctypes.c_int(-1)
    if kind == "tcp":
        context = library.modbus_new_tcp(b"127.0.0.1", int(place))
        listening.value = library.modbus_tcp_listen(context, 1)
    else:
        context = library.modbus_new_rtu(place.encode(), 19200, b"N", 8, 1)
        library.modbus_connect(context)
    library.modbus_set_slave(context, int(unit))
    print("ready", flush=True)
    request = ctypes.create_string_buffer(MAX_ADU)
    while True:
        if kind == "tcp":
            library.modbus_tcp_accept(context, ctypes.byref(listening))
        while (length := library.modbus_receive(context, request)) >= 0:
            if length > 0:
                library.modbus_reply(context, request, length, mapping)


if __name__ == "__main__":
    main()
