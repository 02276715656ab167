"""The environment of a service: where it may lie and what it may be made from."""

from pathlib import Path

import pytest

from hil.install.environment import MakeEnvironment, is_hidden, service_python
from hil.install.steps import InstallFailed


@pytest.mark.parametrize("path", ["/home/ann/venv", "/root/.pyenv/bin/python3", "/tmp/x", "/run/user/1000/x"])  # noqa: S108
def test_services_cannot_see_homes(path: str) -> None:
    assert is_hidden(Path(path))


@pytest.mark.parametrize("path", ["/opt/wattloop", "/usr/bin/python3", "/srv/home/x"])
def test_services_see_the_rest(path: str) -> None:
    assert not is_hidden(Path(path))


def test_python_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="in a place that a service can see"):
        service_python(tmp_path / "python3")


def test_environment_takes_no_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InstallFailed, match="choose another --prefix"):
        MakeEnvironment(tmp_path, Path("/usr/bin/python3")).do()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
