"""``wattloop-hil emulate FILE``: an emulated world for users without hardware, and for tests."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from hil.clock import SystemClock
from hil.emulated.config import EmulationConfig, load_emulation
from hil.emulated.journal import JournalError
from hil.emulated.listen import ListenError
from hil.emulated.ready import Place, Ready, write_ready
from hil.emulated.serve import Emulation
from hil.emulated.sysfs import TreeError
from hil.oserrors import reason
from hil.yamlfile import ConfigError, Document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what to emulate (YAML)")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="write the actual ports there once open")
    parser.add_argument(
        "--journal-dir", type=Path, metavar="DIR", help="journal every node there, instead of where FILE says"
    )


def run(args: argparse.Namespace) -> int:
    """Emulate until SIGINT or SIGTERM; the exit status."""
    try:
        document = load_emulation(args.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    roots = {tree.name: document.resolve(tree.root) for tree in document.value.rapl}
    journals = _journals(document, args.journal_dir)
    emulation = Emulation(document.value, SystemClock(), journals, roots, document.resolve)
    try:
        asyncio.run(_serve(emulation, args.ready_file))
    except (ListenError, JournalError, TreeError) as error:
        print(f"wattloop-hil: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wattloop-hil: {args.ready_file}: {reason(error)}", file=sys.stderr)
        return 1
    return 0


def _journals(document: Document[EmulationConfig], folder: Path | None) -> dict[str, Path]:
    nodes = document.value.nodes
    if folder is not None:
        return {node.name: folder / f"{node.name}.csv" for node in nodes}
    return {node.name: document.resolve(node.journal) for node in nodes if node.journal is not None}


async def _serve(emulation: Emulation, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        ready = await emulation.start()
        for line in _lines(ready):
            print(line, flush=True)
        if ready_file is not None:
            write_ready(ready_file, ready)
        await emulation.run_until(stop)
    finally:
        await emulation.stop()


def _lines(ready: Ready) -> list[str]:
    return [
        *(f"pdu {name}: {_spoken(at)}" for name, at in ready.pdus.items()),
        *(f"unit {name}: {_spoken(at)}" for name, at in ready.units.items()),
        *(f"unit {name}: modbus rtu {at.link} unit {at.unit}" for name, at in ready.serial.items()),
        *(f"rapl {name}: sysfs_root {root}" for name, root in ready.rapl.items()),
        f"control: {ready.control.host}:{ready.control.port}",
        *(f"journal of {name}: {path}" for name, path in ready.journals.items()),
    ]


def _spoken(at: Place) -> str:
    return f"modbus {'tcp' if at.framing == 'socket' else 'rtu over tcp'} {at.host}:{at.port} unit {at.unit}"
