import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agent.cli import main

AGENT = Path(sys.executable).with_name("wattloop-agent")


def test_it_is_as_busy_as_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "third.yaml"
    path.write_text("{cores: 1, phases: [{for_s: 60, duty: 0.3}]}\n")
    assert main(["burn", "--profile", str(path), "--duration", "1"]) == 0
    said = re.fullmatch(r"([\d.]+) s busy on 1 cores in ([\d.]+) s \(\d+%\)\n", capfd.readouterr().out)
    assert said is not None
    # Never more than asked for; a machine that has little to spare gives less.
    assert 0.05 < float(said[1]) < 0.36
    assert float(said[2]) > 0.95


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_it_ends_every_core(number: signal.Signals) -> None:
    burning = psutil.Popen([AGENT, "burn", "--profile", "half"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    cores = len(os.sched_getaffinity(0))
    while len(workers := burning.children()) < cores:
        assert burning.poll() is None, burning.communicate()
    burning.send_signal(number)
    said = burning.communicate(timeout=20)
    assert said == (b"", b"")
    assert burning.returncode == (-number if number is signal.SIGKILL else 128 + number)
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []


def test_a_profile_that_is_none_is_a_line_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("phases: [{for_s: 0, duty: 2}]\n")
    assert main(["burn", "--profile", str(path)]) == 2
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "phases[0].for_s",
        "phases[0].duty",
    ]


@pytest.mark.parametrize("duration", ["0", "-1", "nan", "inf", "soon"])
def test_a_duration_that_is_none(duration: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["burn", "--duration", duration])
