"""A configuration for what a scan found, with comments that say how sure it is."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.meters.modbus.config import DEFAULT_PORT
from agent.meters.modbus.endpoint import SerialEndpoint
from agent.meters.modbus.identify import Candidate, Sureness
from agent.meters.modbus.quantities import PHASE_VOLTAGES, Quantity
from agent.meters.modbus.scan import Found
from hil.units import JOULES_PER_WH, WH_PER_KWH

NAME_CHARS: Final = 50
"""So that a unit and an outlet fit behind it: a name has 63 at most."""

_SHOWN: Final[tuple[tuple[Quantity, Callable[[float], str]], ...]] = (
    (Quantity.POWER_W, lambda power_w: f"{power_w:.4g} W"),
    *((quantity, lambda volts: f"{volts:.1f} V") for quantity in (Quantity.VOLTAGE_V, *PHASE_VOLTAGES)),
    (Quantity.FREQUENCY_HZ, lambda hertz: f"{hertz:.2f} Hz"),
    (Quantity.ENERGY_J, lambda energy_j: f"{energy_j / (JOULES_PER_WH * WH_PER_KWH):.2f} kWh"),
)


def configuration(found: Sequence[Found], target: str, *, complete: bool) -> Iterator[str]:
    """The lines of it."""
    yield f"# wattloop-agent scan {target}" + ("" if complete else ": not finished")
    for one in found:
        if not one.candidates:
            said = f" ({one.nameplate})" if one.nameplate is not None and str(one.nameplate) else ""
            yield f"# unit {one.unit} answers{said}, but no profile fits; see docs/how-to/modbus.md to write one"
    entries = [line for one in found if one.candidates for line in _entries(one)]
    if entries:
        yield "meters:"
        yield from entries


def _entries(found: Found) -> Iterator[str]:
    """Entries for what is certain, or else for the best guess, with the others as comments."""
    best = found.candidates[0]
    certain = best.sureness is Sureness.CERTAIN
    for candidate in found.candidates if certain else found.candidates[:1]:
        profile = candidate.profile
        yield f"  # unit {found.unit}: {profile.vendor} {profile.model}"
        yield f"  # {candidate.sureness.name.lower()}: {candidate.why}"
        yield f"  # now {_readings(candidate)}" + ("" if certain else "; compare with its display")
        if candidate.note:
            yield f"  # but {candidate.note}"
        if not certain and len(found.candidates) > 1:
            yield f"  # it could as well be {', '.join(other.name for other in found.candidates[1:])}"
        for outlet in candidate.outlets or (None,):
            yield from _entry(found, candidate, outlet)


def _readings(candidate: Candidate) -> str:
    shown = [write(candidate.values[quantity]) for quantity, write in _SHOWN if quantity in candidate.values]
    return ", ".join(shown) or "no power"


def _entry(found: Found, candidate: Candidate, outlet: int | None) -> Iterator[str]:
    stem = re.sub("[^a-z0-9]+", "-", Path(candidate.name).stem.lower()).strip("-")[:NAME_CHARS] or "meter"
    yield f"  - name: {stem}-{found.unit}" + (f"-{outlet}" if outlet is not None else "")
    yield "    kind: modbus"
    endpoint = found.endpoint
    if isinstance(endpoint, SerialEndpoint):
        settings = f"baudrate: {endpoint.baudrate}, parity: {endpoint.parity}, stopbits: {endpoint.stopbits}"
        yield f"    serial: {{port: {_text(endpoint.port)}, {settings}}}"
    else:
        yield f"    host: {_text(endpoint.host)}"
        if endpoint.port != DEFAULT_PORT:
            yield f"    port: {endpoint.port}"
        if endpoint.framing != "socket":
            yield f"    framing: {endpoint.framing}"
    yield f"    unit: {found.unit}"
    yield f"    profile: {_text(candidate.name)}"
    if outlet is not None:
        yield f"    outlet: {outlet}"


def _text(text: str) -> str:
    """A text in YAML, in quotes only where it needs them."""
    return text if re.fullmatch("[A-Za-z/][A-Za-z0-9/._-]*|[0-9.]+[.][0-9.]+[.][0-9.]+", text) else json.dumps(text)
