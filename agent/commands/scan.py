"""wattloop-agent scan: which meters are there, and what is to be written into the configuration?

It asks units at a host or on a serial line, tells what they are, and prints a configuration for them. It only reads.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from agent.meters.modbus.bus import Connect
from agent.meters.modbus.config import DEFAULT_PORT, SERIAL_UNITS
from agent.meters.modbus.connection import connect
from agent.meters.modbus.endpoint import Endpoint, Framing, Parity, SerialEndpoint, TcpEndpoint
from agent.meters.modbus.profile import Profile, find, load_profile, shipped
from agent.meters.modbus.scan import STRANGER_TIMEOUT_S, NotReached, Scan
from agent.meters.modbus.scanreport import configuration
from hil.clock import Clock, SystemClock
from hil.commandline import FAILED, Failure
from hil.yamlfile import Document

TCP_UNITS: Final = "1-10,30,100,126,240,247,255"
"""Where devices that speak Modbus TCP themselves are found: 30 and 100 are Victron's, 126 and 240 inverters'."""

LINE_UNITS: Final = "1-10"
LIMIT_S: Final = 120.0
MOST_UNIT: Final = 255
PARITIES: Final[tuple[Parity, ...]] = ("N", "E", "O")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``scan``."""
    parser.add_argument("target", help="HOST[:PORT], or a serial port such as /dev/ttyUSB0")
    parser.add_argument("--units", metavar="1-10,247", help=f"units to ask ({TCP_UNITS}; on a line {LINE_UNITS})")
    parser.add_argument(
        "--framing", choices=("socket", "rtu"), default="socket", help="rtu: HOST passes on a line's bytes"
    )
    parser.add_argument(
        "--baudrate", metavar="9600,19200", help="line speeds to try (those that meters leave the factory with)"
    )
    parser.add_argument("--parity", metavar="N,E", help="parities to try (likewise)")
    parser.add_argument("--profiles", metavar="NAME,FILE.yaml", help="profiles to try (all that are shipped)")
    parser.add_argument("--timeout-s", type=float, default=STRANGER_TIMEOUT_S, help="for each question (%(default)s)")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="stop after so long (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print a configuration for what was found; exit status 0, or 1 if there is none. Raises Failure."""
    return asyncio.run(scan(arguments, connect, SystemClock()))


async def scan(arguments: argparse.Namespace, connecting: Connect, clock: Clock) -> int:
    """Scan and print. Raises Failure where the endpoint cannot be reached at all, or an option means nothing."""
    profiles = _profiles(arguments.profiles)
    endpoints = tuple(_endpoints(arguments, profiles.values()))
    units = _units(arguments.units or (LINE_UNITS if endpoints[0].char_s else TCP_UNITS), endpoints[0])
    progress = _Progress()
    search = Scan(connecting, clock, profiles, arguments.timeout_s, progress)
    complete = True
    try:
        async with asyncio.timeout(arguments.limit_s):
            await search.run(endpoints, units)
    except TimeoutError:
        complete = False
    except NotReached as error:
        if not search.found:
            raise Failure(str(error)) from error
        complete = False
    finally:
        progress.clear()
    sys.stdout.write("\n".join(configuration(search.found, arguments.target, complete=complete)) + "\n")
    if not search.found:
        sys.stderr.write(_advice(endpoints, units, search.asked, arguments.limit_s if not complete else None))
    return 0 if any(found.candidates for found in search.found) else FAILED


def _profiles(named: str | None) -> dict[str, Profile]:
    document: Document[Any] = Document(Path.cwd() / "scan")
    profiles = {}
    for name in named.split(",") if named else shipped():
        path = find(name.strip(), document)
        if path is None:
            raise Failure(f"no profile {name}; expected one of {', '.join(shipped())}, or the path of a .yaml file")
        shown = name.strip() if name.strip() in shipped() else str(path)
        profiles[shown] = load_profile(path)
    return profiles


def _endpoints(arguments: argparse.Namespace, profiles: Iterable[Profile]) -> Iterator[Endpoint]:
    target: str = arguments.target
    if "/" in target:
        for baudrate, parity, stopbits in _lines(arguments, profiles):
            yield SerialEndpoint(target, baudrate, parity, stopbits)
        return
    host, colon, port = target.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):  # no port, or an IPv6 address without one
        host, port = target, str(DEFAULT_PORT)
    if not port.isdecimal() or not 1 <= int(port) <= 0xFFFF:
        raise Failure(f"{target}: expected HOST, HOST:PORT, or a serial port such as /dev/ttyUSB0")
    framing: Framing = arguments.framing
    yield TcpEndpoint(host.strip("[]"), int(port), framing)


def _lines(arguments: argparse.Namespace, profiles: Iterable[Profile]) -> list[tuple[int, Parity, int]]:
    """The settings of a line to try, those of most kinds of meter first."""
    usual = Counter((p.line.baudrate, p.line.parity, p.line.stopbits) for p in profiles if p.line is not None)
    usual.update([(9600, "N", 1), (19200, "N", 1), (19200, "E", 1)])
    baudrates = _baudrates(arguments.baudrate)
    parities = _parities(arguments.parity)
    if baudrates:
        return [(baudrate, parity, 1) for baudrate in baudrates for parity in parities or ("N", "E")]
    return [line for line, _ in usual.most_common() if not parities or line[1] in parities]


def _baudrates(text: str | None) -> list[int]:
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise Failure(f"--baudrate {text}: expected speeds such as 9600,19200")
    return [int(part) for part in parts]


def _parities(text: str | None) -> list[Parity]:
    parts = [part.strip().upper() for part in text.split(",")] if text else []
    if not set(parts) <= set(PARITIES):
        raise Failure(f"--parity {text}: expected some of N,E,O")
    return [parity for parity in PARITIES if parity in parts]


def _units(text: str, endpoint: Endpoint) -> list[int]:
    units: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) > MOST_UNIT:
            raise Failure(f"--units {text}: expected numbers from 0 to {MOST_UNIT} such as 1-10,247")
        units += [unit for unit in range(int(first), int(last or first) + 1) if unit not in units]
    serial = endpoint.char_s > 0 or (isinstance(endpoint, TcpEndpoint) and endpoint.framing == "rtu")
    usable = [unit for unit in units if unit in SERIAL_UNITS] if serial else units
    if not usable:
        raise Failure(f"--units {text}: expected units from 1 to 247 on a serial line")
    return usable


class _Progress:
    """Where a scan is, on one line of a terminal; nothing anywhere else."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{what}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Wipe the line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")


def _advice(endpoints: Sequence[Endpoint], units: Sequence[int], asked: int, limit_s: float | None) -> str:
    if limit_s is not None:
        return f"stopped after {limit_s:g} s, {asked} units asked; --units asks fewer, --limit-s lasts longer\n"
    where = ", ".join(map(str, endpoints))
    lines = [f"nothing answers at {where}, units {_ranges(units)}"]
    if endpoints[0].char_s:
        lines += [
            "is the line wired A to A and B to B? --baudrate and --parity try others, --units 1-247 asks all units"
        ]
    else:
        lines += [
            "is Modbus TCP switched on in the device? --framing rtu is for converters that pass a line's bytes on"
        ]
    return "\n".join(lines) + "\n"


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
