"""Where emulated devices cannot listen."""

from hil.oserrors import reason


class ListenError(Exception):
    """A port cannot be listened on; says whose it is and why."""

    def __init__(self, who: str, host: str, port: int, error: OSError) -> None:
        super().__init__(f"{who}: cannot listen on {host}:{port}: {reason(error)}")
