import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.site import Site, SiteError


def test_epochs_count_starts_and_survive(tmp_path: Path) -> None:
    assert Site(tmp_path, "lab").next_epoch(seen=0) == 1
    assert Site(tmp_path, "lab").next_epoch(seen=0) == 2
    assert Site(tmp_path, "attic").next_epoch(seen=0) == 1


def test_a_wiped_site_starts_above_what_the_agents_know(tmp_path: Path) -> None:
    assert Site(tmp_path, "lab").next_epoch(seen=41) == 42


def test_a_damaged_counter_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab.epoch").write_text("four\n")
    with pytest.raises(SiteError, match=r"lab\.epoch: expected a whole number"):
        Site(tmp_path, "lab").next_epoch(seen=0)


def test_a_second_coordinator_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from coordinator.site import Site\n"
        "site = Site(Path(sys.argv[1]), 'lab'); site.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", hold, str(tmp_path)]
    second = Site(tmp_path, "lab")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SiteError, match=rf"process {holder.pid}"):
            second.acquire()
    second.acquire()
    second.release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SiteError, match="--state-dir"):
        Site(tmp_path / "file" / "state", "lab").acquire()
