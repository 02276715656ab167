"""wattloop-agent check: does the configuration hold, and what do its devices say right now?"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec

from agent.actuators.catalog import AnyActuatorConfig
from agent.commands import options
from agent.commands.table import table
from agent.config import Setup, load_setup
from agent.meters.catalog import AnyMeterConfig
from hil.brokerconfig import BrokerConfig
from hil.clock import SystemClock
from hil.commandline import FAILED
from hil.devices import Actuator, DeviceError, Meter, Quality
from hil.oserrors import reason
from hil.wire import Verb

PATIENCE_S: Final = 10.0


class MeterFinding(msgspec.Struct, frozen=True):
    """One meter, read once; ``note`` says why the reading is less than good, ``problem`` why there is none."""

    name: str
    kind: str
    measures: str
    power_w: float | None = None
    energy_j: float | None = None
    quality: Quality = Quality.MISSING
    note: str = ""
    problem: str = ""


class ActuatorFinding(msgspec.Struct, frozen=True):
    """One actuator: what it can do, and what it is set to; ``problem`` says why that is not known."""

    name: str
    kind: str
    min_w: float | None = None
    max_w: float | None = None
    profiles: tuple[str, ...] = ()
    workload: bool = False
    limit_w: float | None = None
    profile: str | None = None
    note: str = ""
    problem: str = ""


class Findings(msgspec.Struct, frozen=True):
    """Everything that was found."""

    site: str
    node: str
    mode: str
    state_dir: str
    broker: str
    broker_problem: str
    meters: list[MeterFinding]
    actuators: list[ActuatorFinding]

    @property
    def sound(self) -> bool:
        """Whether the agent would find everything in working order."""
        problems = [found.problem for found in self.meters] + [found.problem for found in self.actuators]
        return not self.broker_problem and not any(problems)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``check``."""
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; exit status 0, or 1 if something does not answer. Raises ConfigError."""
    setup = load_setup(Path(arguments.config), SystemClock())
    findings = asyncio.run(look(setup))
    sys.stdout.write(msgspec.json.encode(findings).decode() + "\n" if arguments.json else text(findings))
    return 0 if findings.sound else FAILED


async def look(setup: Setup) -> Findings:
    """What broker, meters and actuators say, all asked at once."""
    config = setup.config
    meters = zip(setup.meters, config.meters, strict=True)
    actuators = zip(setup.actuators, config.actuators, strict=True)
    broker, found_meters, found_actuators = await asyncio.gather(
        _broker_problem(setup.broker),
        asyncio.gather(*(_look_at_meter(meter, entry, config.measured_by(entry)) for meter, entry in meters)),
        asyncio.gather(*(_look_at_actuator(actuator, entry) for actuator, entry in actuators)),
    )
    return Findings(
        config.site,
        config.node,
        config.mode,
        str(setup.state_dir),
        setup.broker.url,
        broker,
        found_meters,
        found_actuators,
    )


async def _broker_problem(broker: BrokerConfig) -> str:
    address = broker.address
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except OSError as error:
        return reason(error)
    writer.close()
    return ""


async def _look_at_meter(meter: Meter, config: AnyMeterConfig, measures: str) -> MeterFinding:
    found = MeterFinding(meter.name, str(config.__struct_config__.tag), measures)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await meter.open()
            reading = await meter.read()
    except TimeoutError:
        return msgspec.structs.replace(found, problem=f"no answer within {PATIENCE_S:g} s")
    except DeviceError as error:
        return msgspec.structs.replace(found, problem=error.what)
    finally:
        await meter.close()
    return msgspec.structs.replace(
        found, power_w=reading.power_w, energy_j=reading.energy_j, quality=reading.quality, note=reading.note
    )


async def _look_at_actuator(actuator: Actuator, config: AnyActuatorConfig) -> ActuatorFinding:
    found = ActuatorFinding(actuator.name, str(config.__struct_config__.tag))
    try:
        async with asyncio.timeout(PATIENCE_S):
            able = await actuator.open()
            setting = await actuator.readback()
    except TimeoutError:
        return msgspec.structs.replace(found, problem=f"no answer within {PATIENCE_S:g} s")
    except DeviceError as error:
        return msgspec.structs.replace(found, problem=error.what)
    finally:
        await actuator.close()
    return msgspec.structs.replace(
        found,
        min_w=able.min_w,
        max_w=able.max_w,
        profiles=able.profiles,
        workload=able.workload,
        limit_w=setting.limit_w,
        profile=setting.profile,
        note=able.note,
    )


def text(findings: Findings) -> str:
    """The findings as tables for people."""
    rows = [["METER", "KIND", "MEASURES", "POWER", "QUALITY"]]
    for meter in findings.meters:
        power = f"{meter.power_w:.2f} W" if meter.power_w is not None else "-"
        quality = f"{meter.quality}: {meter.note}" if meter.note else str(meter.quality)
        rows.append([meter.name, meter.kind, meter.measures, power, meter.problem or quality])
    lines = [
        f"site {findings.site}, node {findings.node}, mode {findings.mode}, state in {findings.state_dir}",
        f"broker {findings.broker}: {findings.broker_problem or 'answers'}",
        "",
        *table(rows),
    ]
    if findings.actuators:
        rows = [["ACTUATOR", "KIND", "LIMITS", "SET TO"]]
        rows += [
            [found.name, found.kind, _limits(found), found.problem or _setting(found)] for found in findings.actuators
        ]
        lines += ["", *table(rows)]
    return "\n".join(lines) + "\n"


def _limits(found: ActuatorFinding) -> str:
    abilities = list(found.profiles)
    if found.workload:
        abilities += Verb
    if found.min_w is not None or found.max_w is not None:
        low, high = (f"{end:g}" if end is not None else "" for end in (found.min_w, found.max_w))
        abilities.insert(0, f"{low}–{high} W")
    return ", ".join(abilities) or "-"


def _setting(found: ActuatorFinding) -> str:
    if found.workload:
        return "-"  # only the agent that started the program knows
    setting = f"{found.limit_w:g} W" if found.limit_w is not None else found.profile or "unlimited"
    return f"{setting} ({found.note})" if found.note else setting
