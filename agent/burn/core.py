"""One core at work: a process of its own that is busy as the schedule says.

What counts as busy is processor time and not time that passes, so that a core shared with others is given its share as
far as there is any. Slices are counted, not timed: a paused load goes on where it was, as a paused job does.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

from agent.burn.schedule import SLICE_S
from hil.tether import die_with


def burn(duties: Iterable[float], core: int, parent: int) -> None:
    """Be busy on ``core`` as ``duties`` say; ends with ``parent``, or when a slice is left of none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        die_with(parent, signal.SIGKILL)
    except ProcessLookupError:
        return
    with contextlib.suppress(OSError):  # a service may be forbidden to choose; the scheduler does it nearly as well
        os.sched_setaffinity(0, [core])
    began = time.monotonic()
    for duty in duties:
        _spin(duty * SLICE_S, began + SLICE_S)
        left_s = began + SLICE_S - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        # A late slice is not made up for: after a pause that would be a burst.
        began = began + SLICE_S if left_s > -SLICE_S else time.monotonic()


def _spin(busy_s: float, deadline: float) -> None:
    until = time.process_time() + busy_s
    while time.process_time() < until and time.monotonic() < deadline:
        pass
