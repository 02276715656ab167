"""The solver's own process: reads one Request on standard input, writes Reports, one JSON object a line.

It may be killed at any time: whoever started it keeps what it has reported so far.
"""

import sys
import time

import msgspec

from coordinator.planner.extract import plan_of
from coordinator.planner.highs import SolverFailed
from coordinator.planner.matrix import Floats
from coordinator.planner.model import build
from coordinator.planner.reports import BoundProved, Failed, Finished, PlanFound, Report, Request
from coordinator.planner.search import Search


def main() -> None:
    """Serve one request."""
    began = time.monotonic()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    model = build(request.instance)

    def found(x: Floats, method: str, shadow_carbon_price: float | None) -> None:
        _tell(PlanFound(plan_of(model, x, method, shadow_carbon_price)))

    search = Search(
        model, began + request.time_limit_s, request.gap, found, lambda bound, method: _tell(BoundProved(bound, method))
    )
    try:
        search.run()
    except SolverFailed as error:
        _tell(Failed(str(error)))
    _tell(Finished())


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
