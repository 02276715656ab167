import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hil.bus import Inbound
from hil.demo.scene import Scene
from hil.demo.summary import print_summary
from hil.wire import Message, MicrogridState, Topics

SUMMARY = {
    "run_dir": "/somewhere else/a run",
    "steps": 11,
    "nodes": ["jetson-1"],
    "samples": {"generated": 22, "committed": 22, "lost": 0, "duplicates": 0},
    "command_latency_ms": {"p50": None, "p99": None},
    "balance_residual": 1.5e-16,
    "final_soc": 0.5,
    "events": [{"at": "2026-06-21T12:00:00Z", "kind": "note", "detail": "noon [not markup]"}],
}


@pytest.fixture
def printed(says: Callable[[str, Message], Inbound], step: Callable[..., MicrogridState]) -> str:
    scene = Scene(Topics("lab"))
    for k in range(11):
        scene.take(says(scene.topics.microgrid("shed"), step(k, soc=0.5 + k / 100, carbon_g_per_kwh=None)))
    out = Console(file=io.StringIO(), width=120)
    print_summary(out, SUMMARY, scene)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_numbers_are_there_and_the_unknown_is_called_so(printed: str) -> None:
    assert re.search(r"samples +generated 22  committed 22  lost 0  duplicates 0", printed)
    assert re.search(r"command latency ms +p50 unknown  p99 unknown", printed)
    assert re.search(r"balance residual +1\.5e-16", printed)


def test_events_stand_below(printed: str) -> None:
    assert "  2026-06-21T12:00:00Z  note: noon [not markup]" in printed


def test_charts_name_their_span_and_what_is_unknown_has_none(printed: str) -> None:
    assert "state of charge, 0–100 %: 50.0 … 60.0 %" in printed
    assert "node, measured power: 15.0 … 15.0 W" in printed
    assert "carbon intensity" not in printed


def test_the_next_commands_can_be_pasted_as_they_stand(printed: str) -> None:
    commands = [shlex.split(line) for line in printed.splitlines() if re.match(r"  \S*(wattloop-\w+|sqlite3) ", line)]
    assert len(commands) >= 3
    replay = next(words for words in commands if "replay" in words)
    assert Path(replay[0]).name == "wattloop-coordinator"
    assert replay[1:] == ["replay", "/somewhere else/a run/run"]


def test_a_run_without_a_step_is_summed_up_too() -> None:
    out = Console(file=io.StringIO(), width=120)
    print_summary(out, SUMMARY | {"events": []}, Scene(Topics("lab")))
    assert isinstance(out.file, io.StringIO)
    assert "generated 22" in out.file.getvalue()
