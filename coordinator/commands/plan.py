"""``wattloop-coordinator plan INSTANCE``: jobs, requests, batteries and grid decided together, with a certified gap.

``plan check INSTANCE PLAN`` checks a plan by independent arithmetic, ``plan generate`` writes a seeded instance, and
``plan explain INSTANCE PLAN JOB`` says what other times and places would have cost. A file of one of these names is
written as ``./check``. Status 0: all hard limits are kept; 1: one is broken; 2: a malformed instance or plan.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from coordinator.commands.options import factor, seconds
from coordinator.planner.instance import Instance
from coordinator.planner.instancefile import load_instance
from coordinator.planner.plan import Plan, encode_plan, load_plan
from coordinator.planner.verify import verify
from hil.commandline import FAILED, Failure

PIPE_WIDTH: Final = 160
USAGE: Final = """%(prog)s INSTANCE [--time-limit TIME] [--gap SHARE] [--baselines] [--json] [--out PLAN]
       %(prog)s check INSTANCE PLAN [--json]
       %(prog)s generate [--sites N] [--slots N] [--jobs N] [--classes N] [--load X] [--seed N] [--out FILE] …
       %(prog)s explain INSTANCE PLAN JOB [--time-limit TIME] [--json]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the four forms take; ``run`` refuses options that the form at hand has no use for."""
    parser.usage = USAGE
    parser.set_defaults(parser=parser)
    parser.add_argument("words", nargs="+", metavar="INSTANCE", help="what to plan, or check, generate or explain")
    parser.add_argument("--json", action="store_true", default=None, help="print the result as one JSON object")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the plan, or the instance generated, there")
    group = parser.add_argument_group("plan and explain")
    group.add_argument("--time-limit", type=seconds, metavar="TIME", help="have a plan by then (60s)")
    group.add_argument("--gap", type=factor, metavar="SHARE", help="stop at this certified gap (0.001)")
    group.add_argument("--baselines", action="store_true", default=None, help="compare with simpler ways to plan")
    group = parser.add_argument_group("generate")
    for name, what in (("sites", "sites (3)"), ("slots", "slots of the day (24)"), ("jobs", "jobs (6)")):
        group.add_argument(f"--{name}", type=count, metavar="N", help=what)
    group.add_argument("--classes", type=count, metavar="N", help="request classes (3)")
    group.add_argument("--load", type=factor, metavar="X", help="work beside the GPUs; jobs contend from 2 on (1)")
    group.add_argument("--seed", type=int, metavar="N", help="what to draw from (0)")
    group.add_argument("--budget-share", type=factor, metavar="X", help="carbon budget beside what rules emit (0.85)")
    group.add_argument("--extras", action="store_true", default=None, help="batch work, signals, outages, cap levels")
    group.add_argument("--negative-prices", action="store_true", default=None, help="prices below 0 now and then")


def count(text: str) -> int:
    """A whole number from 1 to 100000."""
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Do what the first word asks for; the exit status."""
    words = list(arguments.words)
    form = FORMS[words.pop(0)] if words[0] in FORMS else SOLVE
    if len(words) != len(form.words):
        arguments.parser.error(
            f"expected {' '.join(form.words) or 'no further words'} and got {' '.join(words) or 'none'}"
        )
    unused = [name for name in OPTIONS if getattr(arguments, name) is not None and name not in form.options]
    if unused:
        arguments.parser.error(f"no use for --{unused[0].replace('_', '-')} here")
    return form.run(arguments, words)


def _solve(arguments: argparse.Namespace, words: list[str]) -> int:
    _need_solver()
    from coordinator.planner.comparison import compare, table_of
    from coordinator.planner.solve import DEFAULT_GAP, DEFAULT_TIME_LIMIT_S, solve
    from coordinator.planner.summary import plan_lines, summary_of

    instance = load_instance(Path(words[0]))
    limit_s, gap = arguments.time_limit or DEFAULT_TIME_LIMIT_S, arguments.gap or DEFAULT_GAP
    outcome = solve(instance, limit_s, gap, on_progress=_Teller())
    if arguments.out is not None:
        _write(arguments.out, encode_plan(outcome.plan))
    table = compare(instance, outcome.plan, limit_s, gap) if arguments.baselines else ()
    summary = summary_of(instance, outcome.plan, table)
    if arguments.json:
        _print_json(summary)
    else:
        print("\n".join(plan_lines(instance, summary)))
        if table:
            console = Console()
            if not console.is_terminal:  # a pipe has no width to fit into
                console.width = PIPE_WIDTH
            console.print(table_of(table))
    return FAILED if outcome.plan.broken else 0


def _check(arguments: argparse.Namespace, words: list[str]) -> int:
    instance, plan = load_instance(Path(words[0])), load_plan(Path(words[1]))
    verdict = verify(instance, plan)
    if arguments.json:
        _print_json({"keeps_all": not verdict.findings, "findings": verdict.findings, "account": verdict.account})
    else:
        for finding in verdict.findings:
            print(finding)
        if not verdict.findings:
            print(f"{words[1]}: keeps every constraint of {instance.name}; objective {plan.objective:.6g}")
    return FAILED if verdict.findings else 0


def _generate(arguments: argparse.Namespace, _: list[str]) -> int:
    from coordinator.planner.generate import Size, generate

    names = ("sites", "slots", "jobs", "classes", "load", "budget_share", "extras", "negative_prices")
    asked = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    text = msgspec.json.format(msgspec.json.encode(generate(Size(**asked), arguments.seed or 0)), indent=1) + b"\n"
    if arguments.out is None:
        sys.stdout.buffer.write(text)
    else:
        _write(arguments.out, text)
    return 0


def _explain(arguments: argparse.Namespace, words: list[str]) -> int:
    _need_solver()
    from coordinator.planner.explain import explain
    from coordinator.planner.summary import explanation_lines

    instance, plan = load_instance(Path(words[0])), load_plan(Path(words[1]))
    _must_fit(instance, plan, words[1])
    try:
        explanation = explain(instance, plan, words[2], arguments.time_limit or 60.0)
    except KeyError as error:
        raise Failure(f"{instance.name} has no job {words[2]}") from error
    if arguments.json:
        _print_json(explanation)
    else:
        print("\n".join(explanation_lines(explanation)))
    return 0


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the command: the words after its own, the options that it takes, and what runs it."""

    words: tuple[str, ...]
    options: tuple[str, ...]
    run: Callable[[argparse.Namespace, list[str]], int]


SOLVE: Final = Form(("INSTANCE",), ("json", "out", "time_limit", "gap", "baselines"), _solve)
FORMS: Final = {
    "check": Form(("INSTANCE", "PLAN"), ("json",), _check),
    "generate": Form(
        (),
        ("out", "sites", "slots", "jobs", "classes", "load", "seed", "budget_share", "extras", "negative_prices"),
        _generate,
    ),
    "explain": Form(("INSTANCE", "PLAN", "JOB"), ("json", "time_limit"), _explain),
}
OPTIONS: Final = tuple(dict.fromkeys(name for form in (SOLVE, *FORMS.values()) for name in form.options))


class _Teller:
    """Progress on standard error, at most twice a second."""

    def __init__(self) -> None:
        self._told_s = -1.0

    def __call__(self, progress: Any) -> None:
        if progress.wall_s - self._told_s < 0.5:
            return
        self._told_s = progress.wall_s
        sys.stderr.write(
            f"{progress.wall_s:7.1f} s  plan {progress.worth:.6g}  bound {progress.bound:.6g}"
            f"  gap {progress.gap:.4%}  ({progress.method})\n"
        )


def _must_fit(instance: Instance, plan: Plan, path: str) -> None:
    verdict = verify(instance, plan)
    if not verdict.possible:
        raise Failure(f"{path} is no plan for {instance.name}: {verdict.findings[0]}")


def _need_solver() -> None:
    for module in ("highspy", "numpy"):
        if importlib.util.find_spec(module) is None:
            raise Failure(f"planning needs {module}: install the extra wattloop[coordinator]")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error


def _print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())
