"""``wattloop-coordinator check SCENARIO``: everything that a run would read, read and checked; nothing is run."""

import argparse
from pathlib import Path

from coordinator.microgrid.actors import NodeActor
from coordinator.scenario import Scenario, load_scenario
from hil.clock import SystemClock, utc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="the scenario (YAML)")


def run(arguments: argparse.Namespace) -> int:
    """Say what the scenario would do; status 0. Raises ConfigError with all its faults."""
    for line in describe(load_scenario(arguments.scenario, SystemClock())):
        print(line)
    return 0


def describe(scenario: Scenario) -> list[str]:
    """What a scenario amounts to, for people."""
    config = scenario.config
    length = "until it is stopped" if scenario.steps is None else f"{scenario.steps} steps"
    start = utc(scenario.start_us).astimezone(scenario.zone)
    lines = [
        f"{scenario.path}: {config.name} at site {config.site}, {length} of {config.interval_s:g} s",
        f"  starts {start.isoformat()}, {config.speed:g} simulated seconds a second; broker {config.broker.url}",
    ]
    for part in scenario.microgrids:
        lines.append(f"  microgrid {part.name}")
        for actor in part.actors:
            if isinstance(actor, NodeActor):
                meters = ", ".join(map(str, actor.meters)) or f"whatever measures {actor.node}"
                lines.append(f"    {actor.role} {actor.name}: node {actor.node}, {meters}, {actor.nameplate_w:g} W")
            else:
                lines.append(f"    {actor.role} {actor.name}: modelled")
    lines += [f"  controller {bound.name} on {bound.microgrid}" for bound in scenario.controllers]
    return lines
