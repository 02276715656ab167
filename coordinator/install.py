"""wattloop-coordinator install: coordinators as services, one instance per scenario."""

import argparse
from pathlib import Path

from hil.install import command
from hil.install.service import Service, Shipped

SERVICE = Service(
    program="wattloop-coordinator",
    unit="wattloop-coordinator@.service",
    sysusers=Shipped("wattloop-coordinator.sysusers.conf", Path("/etc/sysusers.d/wattloop-coordinator.conf")),
    config=Shipped("coordinator.yaml", Path("/etc/wattloop/coordinator/lab.yaml")),
    start="""
Next: describe the microgrid in /etc/wattloop/coordinator/lab.yaml, then
  systemctl enable --now wattloop-coordinator@lab
  journalctl -fu wattloop-coordinator@lab
Another scenario beside it is another file there, and another instance.""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``install``."""
    command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Install or remove the coordinator's service; exit status 0. Raises InstallFailed."""
    return command.run(SERVICE, arguments)
