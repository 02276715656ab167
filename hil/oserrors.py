"""Operating system errors in words that people know: asyncio hides them in sentences of its own."""

import os
import socket


def reason(error: OSError) -> str:
    """What went wrong, without errno and addresses: ``connection refused``."""
    if isinstance(error, TimeoutError):
        text = "timed out"
    elif isinstance(error, socket.gaierror) or not error.errno:  # a resolver's numbers are not errno's
        text = error.strerror or str(error) or type(error).__name__
    else:
        text = os.strerror(error.errno)
    return text[:1].lower() + text[1:]
