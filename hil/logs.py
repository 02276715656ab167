"""Where log lines go: stderr, with priorities that journald understands when it is the one that listens."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")

# syslog(3) priorities, as sd-daemon(3) wants them in front of a line
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class JournalFormatter(logging.Formatter):
    """Lines for journald: a priority in front of each, no time (the journal has its own)."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its priority: journald takes every line for an entry of its own."""
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class TerminalFormatter(logging.Formatter):
    """Lines for people: time of day, level, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", datefmt="%H:%M:%S")


def configure(level: str, *, stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> None:
    """Send the log of this process to ``stream``, from ``level`` (one of ``LEVELS``) upwards."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter() if "JOURNAL_STREAM" in environment else TerminalFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
