"""What an agent can tell of the machine that it runs on."""

from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# systemd-timesyncd touches it when it has set the clock. adjtimex(2), which knows more, is refused to a service that
# must not set the clock (ProtectClock=yes), so its absence means nothing.
CLOCK_SET: Final = Path("/run/systemd/timesync/synchronized")


def boot_id(path: Path = BOOT_ID) -> str:
    """A name of the time since this machine was started; empty where it tells none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def clock_synchronised(path: Path = CLOCK_SET) -> bool | None:
    """True where the clock is known to follow a time server, None where nobody can tell."""
    return True if path.exists() else None
