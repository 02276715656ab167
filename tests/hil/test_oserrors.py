import errno
import socket

import pytest

from hil.oserrors import reason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError(errno.EADDRINUSE, "error while attempting to bind on address"), "address already in use"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name or service not known"),
        (OSError("something of asyncio's own"), "something of asyncio's own"),
        (TimeoutError(), "timed out"),
    ],
)
def test_reasons_are_what_people_know(error: OSError, text: str):
    assert reason(error) == text
