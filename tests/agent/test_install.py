"""The configuration that ``wattloop-agent install`` puts in place."""

import re
from pathlib import Path

import pytest

from agent.config import load_setup
from agent.gate import Mode
from agent.install import SERVICE
from hil.clock import ManualClock


def test_shipped_configuration_measures_and_obeys_nobody(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(SERVICE.config.text(Path("/opt/wattloop")))
    setup = load_setup(file, ManualClock(), {})
    assert [meter.name for meter in setup.meters] == ["cpu"]
    assert setup.config.mode is Mode.OBSERVE
    assert setup.actuators == ()


def test_what_it_offers_in_comments_is_right_too(tmp_path: Path) -> None:
    text = re.sub(r"^(\s*)#(?! \S)", r"\1", SERVICE.config.text(Path("/opt/wattloop")), flags=re.MULTILINE)
    secret = tmp_path / "mqtt-password"
    secret.touch(0o600)
    secret.write_text("x")
    file = tmp_path / "agent.yaml"
    file.write_text(re.sub("password_file: .*", f"password_file: {secret}", text))
    setup = load_setup(file, ManualClock(), {})
    assert [meter.name for meter in setup.meters] == ["cpu", "outlet"]
    assert [actuator.name for actuator in setup.actuators] == ["board"]
    assert setup.broker.password_file == str(secret)


@pytest.mark.parametrize("prefix", ["/opt/wattloop", "/srv/watt"])
def test_unit_starts_what_is_installed(prefix: str) -> None:
    unit = SERVICE.files[0].text(Path(prefix))
    commands = re.findall(r"^Exec\w+=(\S+)", unit, flags=re.MULTILINE)
    assert commands == [f"{prefix}/bin/wattloop-agent"] * 2
