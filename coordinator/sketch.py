"""A first scenario for the agents that were heard, as text with comments for its owner to go on from."""

from collections.abc import Iterable, Sequence
from typing import Final

from hil.wire import Birth

UNKNOWN_NAMEPLATE_W: Final = 100.0

_HEAD = """\
# A scenario for the nodes that were heard. It runs as it stands: live, on the grid, without a battery.
# `wattloop-coordinator check` tells what is wrong with it after each change.

name: {site}-first
site: {site}
broker: {{url: "{broker_url}"}}
interval_s: 1        # a step every second
# start: 2026-06-21T00:00:00Z   # the simulated instant of the first step; without it, now
# speed: 10                     # simulated seconds per real second
# duration_s: 86400             # without it, the run lasts until it is stopped
# timezone: Europe/Berlin       # in which controllers see the time of day

# signals:
#   carbon: {{kind: constant, value: 350, unit: g/kWh}}
#   carbon: {{kind: trace, file: carbon.csv, unit: g/kWh, beyond: wrap}}   # columns: time, one value

microgrids:
  - name: {site}
    # carbon: carbon
    actors:
"""

_TAIL = """\
      # - {kind: trace, name: solar, role: producer, file: solar.csv, unit: W, beyond: wrap}
      # - {kind: constant, name: lights, role: load, power_w: 40}
    # storage: {kind: lossless, capacity_wh: 1000, soc: 0.5, min_soc: 0.2}
    grid: {}         # no limits; leave the line out for an island

# controllers:
#   - class: my_controller:MyController     # my_controller.py beside this file
#     args: {}
#   - rules:
#       - name: night saving
#         when: {time: {from: "20:00", to: "06:00"}}
#         then: [{do: limit, node: NODE, limit_w: WATTS}]
#         afterwards: [{do: release, node: NODE}]
"""

_NO_NODE = """\
      # No agent was heard. This stands in for one:
      - {kind: constant, name: example, role: load, power_w: 15}
"""


def scenario_from(births: Sequence[Birth], site: str, broker_url: str) -> str:
    """The text of a scenario with every node that one of the agents measures, and its meters."""
    nodes = sorted({meter.measures for birth in births for meter in birth.meters})
    actors = "".join(_actor(node, births) for node in nodes) or _NO_NODE
    return _HEAD.format(site=site, broker_url=broker_url) + actors + _TAIL


def _actor(node: str, births: Iterable[Birth]) -> str:
    births = list(births)
    own = next((birth for birth in births if birth.node == node), None)
    meters = [f"{birth.node}/{meter.name}" for birth in births for meter in birth.meters if meter.measures == node]
    lines = ["- kind: node", f"  node: {node}"]
    if own is None or own.nameplate_w is None:
        lines.append(f"  nameplate_w: {UNKNOWN_NAMEPLATE_W:g}   # not announced: put what it draws at most")
    else:
        lines.append(f"  nameplate_w: {own.nameplate_w:g}")
    order = "   # the first counts, the others step in when it is silent" if len(meters) > 1 else ""
    lines.append(f"  meters: [{', '.join(meters)}]{order}")
    lines += [f"  # {told}" for told in _actuators(own)]
    return "".join(f"      {line}\n" for line in lines)


def _actuators(birth: Birth | None) -> list[str]:
    if birth is None or not birth.actuators:
        return ["no actuator: its power cannot be limited"]
    told = []
    for actuator in birth.actuators:
        span = "" if actuator.min_w is None or actuator.max_w is None else f" {actuator.min_w:g}..{actuator.max_w:g} W"
        profiles = f", profiles {', '.join(actuator.profiles)}" if actuator.profiles else ""
        told.append(f"actuator {actuator.name}: {', '.join(actuator.actions)}{span}{profiles}")
    return told
