import os
from pathlib import Path

import pytest

from hil.emulated.sysfs.tree import Tree, TreeError


def test_links_stay_inside_so_that_the_tree_can_be_mounted_elsewhere(tmp_path: Path):
    tree = Tree(tmp_path / "sys")
    tree.begin()
    tree.write("devices/a/name", "hello")
    tree.link("class/a", "devices/a")
    (tmp_path / "sys").rename(tmp_path / "moved")
    assert (tmp_path / "moved/class/a/name").read_text() == "hello\n"


def test_a_number_is_read_whole_whatever_was_there_before(tmp_path: Path):
    tree = Tree(tmp_path)
    tree.begin()
    number = tree.number("energy_uj", 12, 0o400)
    for value in (262143328850, 0, 7, 99999999999):
        number.write(value)
        assert int((tmp_path / "energy_uj").read_text()) == value
        assert (tmp_path / "energy_uj").stat().st_size == 13
    assert (tmp_path / "energy_uj").stat().st_mode & 0o777 == 0o400
    tree.end()


def test_a_file_that_is_kept_open_shows_the_newest_number(tmp_path: Path):
    tree = Tree(tmp_path)
    tree.begin()
    number = tree.number("energy_uj", 12, 0o400)
    fd = os.open(tmp_path / "energy_uj", os.O_RDONLY)
    number.write(42)
    assert int(os.pread(fd, 64, 0)) == 42
    os.close(fd)
    tree.end()


def test_it_takes_over_what_an_earlier_emulation_left_and_removes_what_it_made(tmp_path: Path):
    for _ in range(2):
        tree = Tree(tmp_path / "sys")
        tree.begin()
        tree.write("devices/a/name", "hello")
        tree.link("class/a", "devices/a")
    assert sorted(path.name for path in (tmp_path / "sys").iterdir()) == [".emulated-sysfs", "class", "devices"]
    tree.end()
    tree.end()
    assert list((tmp_path / "sys").iterdir()) == []


def test_it_never_touches_a_folder_that_is_not_its_own(tmp_path: Path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(TreeError, match="not empty, and not made by an emulation"):
        Tree(tmp_path).begin()
    Tree(tmp_path).end()
    assert (tmp_path / "precious").read_text() == "data"


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TreeError, match="file/sys: not a directory"):
        Tree(tmp_path / "file" / "sys").begin()
