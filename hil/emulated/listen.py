"""Where emulated devices cannot listen."""

from pathlib import Path

from hil.oserrors import reason


class ListenError(Exception):
    """Something cannot be listened on; says whose it is and why."""

    def __init__(self, who: str, host: str, port: int, error: OSError) -> None:
        super().__init__(f"{who}: cannot listen on {host}:{port}: {reason(error)}")


class LinkError(ListenError):
    """A pseudo-terminal cannot be linked to; says whose it is and why."""

    def __init__(self, who: str, link: Path, error: OSError) -> None:
        Exception.__init__(self, f"{who}: cannot link {link} to a terminal: {reason(error)}")
