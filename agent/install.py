"""wattloop-agent install: this machine's agent as a service."""

import argparse
from pathlib import Path

from hil.install import command
from hil.install.service import Service, Shipped

SERVICE = Service(
    program="wattloop-agent",
    unit="wattloop-agent.service",
    sysusers=Shipped("wattloop-agent.sysusers.conf", Path("/etc/sysusers.d/wattloop-agent.conf")),
    config=Shipped("agent.yaml", Path("/etc/wattloop/agent.yaml")),
    others=(
        Shipped("wattloop-agent.tmpfiles.conf", Path("/etc/tmpfiles.d/wattloop-agent.conf")),
        Shipped("70-wattloop-meters.rules", Path("/etc/udev/rules.d/70-wattloop-meters.rules")),
    ),
    commands=(
        ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/wattloop-agent.conf"),
        ("udevadm", "control", "--reload"),
    ),
    start="""
Next: say in /etc/wattloop/agent.yaml which broker and meters there are, then
  systemctl enable --now wattloop-agent
  journalctl -fu wattloop-agent""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``install``."""
    command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Install or remove the agent's service; exit status 0. Raises InstallFailed."""
    return command.run(SERVICE, arguments)
