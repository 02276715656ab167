import os
import stat
from pathlib import Path

import pytest

from agent.statedir import StateDir, StateDirError
from hil.clock import ManualClock


def test_a_second_agent_is_kept_out_and_told_by_whom(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "state"), StateDir(tmp_path / "state")
    first.acquire()
    with pytest.raises(StateDirError, match=f"in use by another agent, process {os.getpid()}; stop it first"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    state_dir = StateDir(folder)
    state_dir.acquire()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    state_dir.release()


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirError, match=r"file/state: Not a directory; name a folder .* in state_dir"):
        StateDir(tmp_path / "file" / "state").acquire()


def test_sessions_rise_over_lives_a_clock_set_back_and_a_folder_emptied(tmp_path: Path) -> None:
    clock = ManualClock()
    state_dir = StateDir(tmp_path)
    sessions = [state_dir.next_session(clock), state_dir.next_session(clock)]
    clock.jump_wall(-1e6)
    sessions.append(state_dir.next_session(clock))
    clock.jump_wall(1e6 + 10)
    (tmp_path / "session").unlink()
    sessions.append(state_dir.next_session(clock))
    assert sessions == sorted(set(sessions))


@pytest.mark.parametrize("content", ["", "x", "-", "\x00\x00"])
def test_a_damaged_session_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "session").write_text(content)
    clock = ManualClock()
    assert StateDir(tmp_path).next_session(clock) == clock.wall_us() // 1_000_000


def test_without_room_for_the_session_the_time_has_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "session.new").mkdir()
    clock = ManualClock()
    assert StateDir(tmp_path).next_session(clock) == clock.wall_us() // 1_000_000
    assert "is not stored" in caplog.text
