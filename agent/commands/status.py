"""wattloop-agent status: what is measured and limited on this node now, by whom, and for how long."""

import argparse
import sys
from pathlib import Path

import msgspec

from agent.commands import options
from agent.commands.table import table
from agent.config import load_setup
from agent.leasestore import Memory, StoreFailed, peek
from agent.report import UNAVAILABLE, ActuatorReport, NodeReport
from agent.statedir import StateDir
from agent.window import WindowShut, look
from hil.clock import SystemClock
from hil.commandline import FAILED, Failure
from hil.wire import Ack


class Absence(msgspec.Struct, frozen=True):
    """What is known where no agent runs: what it left changed, and whether a person has locked the limits."""

    site: str
    node: str
    locked: bool
    not_restored: tuple[str, ...]
    unfinished: tuple[Ack, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``status``."""
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print how the agent stands; exit status 0, or 1 where none runs. Raises ConfigError or Failure."""
    setup = load_setup(Path(arguments.config), SystemClock())
    state_dir = StateDir(setup.state_dir)
    try:
        report = look(state_dir.window)
        found = report if report is not None else _absence(setup.config.site, setup.config.node, state_dir)
    except PermissionError as error:
        raise Failure(f"{setup.state_dir}: permission denied; ask as root or as the agent's user") from error
    except (WindowShut, StoreFailed) as error:
        raise Failure(str(error)) from error
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if arguments.json else found_text(found))
    return 0 if report is not None else FAILED


def found_text(found: NodeReport | Absence) -> str:
    """What was found, for people."""
    return text(found) if isinstance(found, NodeReport) else text_of_absence(found)


def _absence(site: str, node: str, state_dir: StateDir) -> Absence:
    memory = peek(state_dir.leases) if state_dir.leases.exists() else Memory()
    unfinished = tuple(answered.ack for answered in memory.unfinished)
    return Absence(site, node, state_dir.switch.exists(), tuple(memory.undo), unfinished)


def text(report: NodeReport) -> str:
    """The report as tables for people."""
    link = "connected" if report.connected else "not connected"
    lines = [
        f"node {report.node} of site {report.site}: {report.lease_state}, mode {report.mode}, process {report.pid}",
        f"broker {report.broker}: {link}",
        report.books,
        "",
    ]
    rows = [["METER", "POWER", "QUALITY", "AGE"]]
    rows += [[meter.name, _watts(meter.power_w, "-"), meter.quality, f"{meter.age_s:.1f} s"] for meter in report.meters]
    lines += table(rows)
    if report.actuators:
        rows = [["ACTUATOR", "REQUESTED", "APPLIED", "MEASURED", "STATE", "SOURCE", "REMAINING"]]
        rows += [_actuator(actuator, report.measured_w) for actuator in report.actuators]
        lines += ["", *table(rows)]
    return "\n".join([*lines, *_leases(report)]) + "\n"


def text_of_absence(absence: Absence) -> str:
    """What is known without an agent, for people."""
    lines = [f"node {absence.node} of site {absence.site}: no agent runs"]
    if absence.locked:
        lines.append("locked: `wattloop-agent unlock` lets a coordinator limit this node again")
    lines += [
        f"{name}: still as the last agent set it{_asked(absence, name)}; `wattloop-agent restore` puts it back"
        for name in absence.not_restored
    ]
    return "\n".join(lines) + "\n"


def _asked(absence: Absence, name: str) -> str:
    asked = [ack for ack in absence.unfinished if ack.actuator == name and ack.applied_w is not None]
    return f", {asked[-1].applied_w:g} W for {asked[-1].issuer}" if asked else ""


def _actuator(actuator: ActuatorReport, measured_w: float | None) -> list[str]:
    setting = "-" if actuator.state == UNAVAILABLE else actuator.profile or actuator.workload or "unlimited"
    return [
        actuator.name,
        _watts(actuator.requested_w, setting),
        _watts(actuator.applied_w, setting),
        _watts(measured_w, "-"),
        f"{actuator.state} ({actuator.note})" if actuator.note else actuator.state,
        actuator.source or "-",
        f"{actuator.remaining_s:.0f} s" if actuator.remaining_s is not None else "-",
    ]


def _leases(report: NodeReport) -> list[str]:
    rows = [["LEASE ON", "BY", "ASKS FOR", "SHOWN BY METER", "REMAINING", "REASON"]]
    for actuator in report.actuators:
        for lease in actuator.leases:
            asked = _watts(lease.requested_w, lease.profile or lease.workload or "-")
            if lease.applied_w != lease.requested_w:
                asked += f", gets {_watts(lease.applied_w, '-')}"
            shown = lease.effect + (f", {_watts(lease.measured_w, '-')}" if lease.measured_w is not None else "")
            rows.append([actuator.name, lease.issuer, asked, shown, f"{lease.remaining_s:.0f} s", lease.reason or "-"])
    return ["", *table(rows)] if len(rows) > 1 else []


def _watts(power_w: float | None, absent: str) -> str:
    return f"{power_w:.2f} W" if power_w is not None else absent
