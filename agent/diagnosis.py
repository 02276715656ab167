"""What a source of power readings on this machine is good for: found without a configuration, told in plain words."""

import enum
from dataclasses import dataclass


class SourceState(enum.StrEnum):
    """Whether a source can be read."""

    OK = "ok"
    UNREADABLE = "unreadable"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Finding:
    """One source: ``reason`` says what it offers, or why it cannot be read; ``reading_w`` is what it shows now, in W.

    ``snippet`` is the entry below ``meters:`` in agent.yaml that reads it; empty where none would help.
    """

    source: str
    state: SourceState
    reason: str
    reading_w: float | None = None
    snippet: str = ""
