from pathlib import Path

import pytest

from hil.durable import write_durably


def test_the_text_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    write_durably(tmp_path / "epoch", "1\n")
    write_durably(tmp_path / "epoch", "2\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"epoch": "2\n"}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_durably(tmp_path / "nowhere" / "epoch", "1\n")
