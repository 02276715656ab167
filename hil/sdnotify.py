"""What a service tells systemd: ready, alive, stopping, and one line of status. See sd_notify(3)."""

import os
import socket
from collections.abc import Mapping
from typing import Self

from hil.units import MICROSECONDS_PER_SECOND


class Notifier:
    """A line to the service manager; silent where there is none."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The notifier that the service manager asked for, with its watchdog period in s, if that is meant for us."""
        pid = environment.get("WATCHDOG_PID")
        period = environment.get("WATCHDOG_USEC", "")
        meant = pid is None or pid == str(os.getpid())
        watchdog_s = int(period) / MICROSECONDS_PER_SECOND if meant and period.isdigit() and int(period) else None
        return cls(environment.get("NOTIFY_SOCKET"), watchdog_s)

    def ready(self) -> None:
        """Start-up is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog; call only after real progress, at least twice per ``watchdog_s``."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """The service is on its way out."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                link.setblocking(False)
                link.sendto(line.encode(), self._address)
        except OSError:  # a manager that is gone or busy must not take the service with it
            return
