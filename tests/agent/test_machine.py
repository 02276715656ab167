import uuid
from pathlib import Path

from agent.machine import boot_id, clock_synchronised


def test_the_boot_id_is_the_same_for_as_long_as_the_machine_runs() -> None:
    assert uuid.UUID(boot_id())
    assert boot_id() == boot_id()


def test_without_one_it_is_empty(tmp_path: Path) -> None:
    assert boot_id(tmp_path / "none") == ""


def test_the_clock_is_known_to_be_set_or_nobody_can_tell(tmp_path: Path) -> None:
    mark = tmp_path / "synchronized"
    assert clock_synchronised(mark) is None
    mark.touch()
    assert clock_synchronised(mark) is True
