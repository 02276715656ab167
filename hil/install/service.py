"""A service as files and commands: what its installation and its removal consist of."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hil.install.environment import MARKER
from hil.install.steps import MakeDirectory, RemoveFile, RemoveTree, Run, Step, WriteFile
from hil.places import data_path

DEFAULT_PREFIX = Path("/opt/wattloop")
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file of the ``systemd`` directory and where it goes on a machine."""

    name: str
    target: Path

    def text(self, prefix: Path) -> str:
        """Its content, for an environment at ``prefix``."""
        text = (data_path("systemd") / self.name).read_text(encoding="utf-8")
        return text.replace(f"{DEFAULT_PREFIX}/bin/", f"{prefix}/bin/")


@dataclass(frozen=True, slots=True)
class Service:
    """What tells one service from another."""

    program: str
    unit: str
    sysusers: Shipped
    config: Shipped
    others: tuple[Shipped, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    start: str = ""

    @property
    def files(self) -> tuple[Shipped, ...]:
        """What is replaced by each installation and removed by ``--uninstall``."""
        return (Shipped(self.unit, UNITS / self.unit), self.sysusers, *self.others)


def file_steps(service: Service, prefix: Path, root: Path) -> Iterator[Step]:
    """Put the service's files below ``root``; the user's configuration stays."""
    yield MakeDirectory(below(root, Path("/etc/wattloop")))
    yield MakeDirectory(below(root, Path("/etc/wattloop/credentials")), 0o700)
    for file in service.files:
        yield WriteFile(below(root, file.target), file.text(prefix))
    yield WriteFile(below(root, service.config.target), service.config.text(prefix), keep=True)


def account_steps(service: Service, prefix: Path) -> Iterator[Step]:
    """Make the service's user, and see that it can run the program."""
    yield Run(["systemd-sysusers", service.sysusers.target])
    yield Run(["runuser", "-u", service.program, "--", prefix / "bin" / service.program, "--version"])
    for command in service.commands:
        yield Run(command, may_fail=True)  # no udev in a container, no powercap on this machine


def reload_steps(service: Service) -> Iterator[Step]:
    """Let a running systemd see the new files, and the service, if it runs, the new version."""
    yield Run(["systemctl", "daemon-reload"])
    yield Run(["systemctl", "try-restart", instances(service.unit)])


def removal_steps(service: Service, prefix: Path, root: Path, *, running: bool) -> Iterator[Step]:
    """Stop the service and take away what the installation put there; configuration, state and user stay."""
    if running and (UNITS / service.unit).exists():
        yield Run(["systemctl", "stop", instances(service.unit)])
        yield Run(["systemctl", "disable", "--quiet", service.unit], may_fail=True)  # it may never have been enabled
    for file in service.files:
        yield RemoveFile(below(root, file.target))
    if root == Path("/") and not other_services(service):
        yield RemoveTree(prefix, MARKER)
    if running:
        yield Run(["systemctl", "daemon-reload"])


def other_services(service: Service) -> list[str]:
    """Wattloop's other services on this machine; they share the environment."""
    return sorted(unit.name for unit in UNITS.glob("wattloop-*.service") if unit.name != service.unit)


def instances(unit: str) -> str:
    """A pattern for all running instances of a template unit, or the unit itself."""
    return unit.replace("@.", "@*.")


def below(root: Path, path: Path) -> Path:
    """An absolute path inside another root directory."""
    return root / path.relative_to("/")
