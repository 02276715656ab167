"""Where shipped files are found."""

from hil.places import data_path, source_tree


def test_source_tree_is_where_the_packages_lie() -> None:
    tree = source_tree()
    assert tree is not None
    assert (tree / "hil" / "places.py").is_file()


def test_data_path_in_a_source_tree() -> None:
    assert (data_path("systemd") / "wattloop-agent.service").is_file()
    assert (data_path("requirements") / "base.lock").is_file()
