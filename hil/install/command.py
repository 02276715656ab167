"""The ``install`` command of both services."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hil.install.environment import environment_steps, is_hidden, service_python
from hil.install.service import (
    DEFAULT_PREFIX,
    Service,
    account_steps,
    file_steps,
    other_services,
    reload_steps,
    removal_steps,
)
from hil.install.steps import InstallFailed, Step
from hil.oserrors import reason
from hil.places import NotInstalled

SYSTEMD_RUNS = Path("/run/systemd/system")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``run`` reads."""
    parser.add_argument("--dry-run", action="store_true", help="print every file and command, change nothing")
    parser.add_argument("--uninstall", action="store_true", help="take it away again; configuration and state stay")
    parser.add_argument(
        "--prefix", type=Path, default=DEFAULT_PREFIX, metavar="DIR", help="environment to install into (%(default)s)"
    )
    parser.add_argument("--python", type=Path, metavar="FILE", help="the Python to make the environment from")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="install this wheel of Wattloop, not what runs now")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="write the files below DIR and run no command"
    )


def run(service: Service, arguments: argparse.Namespace) -> int:
    """Install or remove a service; exit status 0. Raises InstallFailed."""
    check(arguments)
    try:
        steps = list(removal(service, arguments) if arguments.uninstall else installation(service, arguments))
        if arguments.dry_run:
            for step in steps:
                print(step.tell())
            return 0
        carry_out(steps)
    except NotInstalled as error:
        raise InstallFailed(str(error)) from error
    except OSError as error:
        raise InstallFailed(f"{error.filename}: {reason(error)}") from error
    if arguments.root != Path("/"):
        print(f"no command run: {arguments.root} is not this machine's root")
    else:
        print(kept(service, arguments.prefix) if arguments.uninstall else service.start)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work. Raises InstallFailed."""
    prefix = arguments.prefix
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", str(prefix)):
        raise InstallFailed(f"--prefix {prefix}: expected an absolute path of plain letters, as units want it")
    if is_hidden(prefix):
        raise InstallFailed(f"--prefix {prefix}: a service cannot see into home or temporary directories")
    if arguments.wheel is not None and not arguments.wheel.is_file():
        raise InstallFailed(f"--wheel {arguments.wheel}: no such file")
    if os.geteuid() != 0 and arguments.root == Path("/") and not arguments.dry_run:
        raise InstallFailed("needs root; run it with sudo, or see with --dry-run what it would do")


def installation(service: Service, arguments: argparse.Namespace) -> Iterator[Step]:
    """The steps of an installation, in order."""
    whole_machine = arguments.root == Path("/")
    inside = Path(sys.prefix).resolve() == arguments.prefix.resolve()
    if whole_machine and (arguments.wheel is not None or not inside):
        yield from environment_steps(arguments.prefix, service_python(arguments.python), arguments.wheel)
    yield from file_steps(service, arguments.prefix, arguments.root)
    if whole_machine:
        yield from account_steps(service, arguments.prefix)
        if SYSTEMD_RUNS.is_dir():
            yield from reload_steps(service)


def removal(service: Service, arguments: argparse.Namespace) -> Iterator[Step]:
    """The steps of a removal, in order."""
    running = arguments.root == Path("/") and SYSTEMD_RUNS.is_dir()
    return removal_steps(service, arguments.prefix, arguments.root, running=running)


def carry_out(steps: Iterable[Step]) -> None:
    """Do all steps, telling each. Raises InstallFailed or OSError at the first that fails."""
    before = os.umask(0o022)  # the service's own user must be able to read what root installs
    try:
        for step in steps:
            print(step.do(), flush=True)
    finally:
        os.umask(before)


def kept(service: Service, prefix: Path) -> str:
    """What a removal leaves behind, and how to be rid of it."""
    others = other_services(service)
    lines = [f"{prefix} stays for {', '.join(others)}."] if others else []
    lines += [
        f"Your configuration ({service.config.target}), the state (/var/lib/{service.program}) and the user",
        f"{service.program} stay. To remove them too:",
        f"  rm -r {service.config.target} /var/lib/{service.program}; userdel {service.program}",
    ]
    return "\n".join(lines)
