"""Which program, and how to treat it."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from agent.actuators.base import ActuatorConfig

SHELLS: Final = frozenset(
    {
        "ash",
        "bash",
        "busybox",
        "csh",
        "dash",
        "elvish",
        "fish",
        "ksh",
        "mksh",
        "nu",
        "pwsh",
        "rbash",
        "sh",
        "tcsh",
        "zsh",
    }
)

Text = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\0]*\Z")]


class WorkloadConfig(ActuatorConfig, frozen=True, kw_only=True, tag_field="kind", tag="workload"):
    """A program by its absolute path and arguments; ``grace_s`` in s from SIGTERM to SIGKILL."""

    argv: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=256)]
    folder: Text | None = None
    env: dict[str, Text] = msgspec.field(default_factory=dict)
    restart: Literal["never", "on-failure"] = "never"
    grace_s: Annotated[float, msgspec.Meta(ge=0.1, le=4)] = 3.0

    def __post_init__(self) -> None:
        program = self.argv[0]
        if not Path(program).is_absolute():
            raise ValueError(f"expected the program as an absolute path, not {program!r}")
        if self.folder is not None and not Path(self.folder).is_absolute():
            raise ValueError(f"expected folder as an absolute path, not {self.folder!r}")
        # Among the arguments, too: `env sh -c …` is as good as a shell.
        for word in (str(Path(program).resolve()), *self.argv):
            if Path(word).name in SHELLS:
                raise ValueError(f"{word!r} is a shell, which runs whatever it is told; name the program itself")
