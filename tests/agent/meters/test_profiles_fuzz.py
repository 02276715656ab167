"""Register images that mean nothing through every shipped profile: ten thousand here, a million in the bench."""

import json
import subprocess
import sys
from pathlib import Path

from agent.meters.modbus.profile import shipped

BENCH = Path(__file__).parents[3] / "bench" / "profile_fuzz.py"


def run(*arguments: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run([sys.executable, BENCH, *arguments], capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_no_crash_no_number_without_end_and_nothing_absurd_called_good():
    status, found = run("--blocks", "10000")
    assert found["examples"] == []
    assert status == 0
    assert found["tables"] == len(shipped()) + 2  # the SunSpec profiles have two each


def test_without_the_checks_there_is_something_to_find():
    status, found = run("--blocks", "2000", "--unchecked")
    assert status == 1
    assert found["findings"]
