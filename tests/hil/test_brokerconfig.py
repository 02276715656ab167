"""How a broker is named in a configuration, and the secrets that it names."""

# ruff: noqa: S105, S106  # the passwords here guard nothing

from pathlib import Path

import pytest

from hil.brokerconfig import Address, BrokerConfig, address_of
from hil.yamlfile import ConfigError, Section, load


class Config(Section, frozen=True, kw_only=True):
    broker: BrokerConfig = BrokerConfig()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "mqtt.password"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


def with_password(path: Path) -> BrokerConfig:
    return BrokerConfig(username="jetson-1", password_file=str(path))


def refusal(config: BrokerConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        config.access()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker", 1883, tls=False)),
        ("mqtts://broker", Address("broker", 8883, tls=True)),
        ("mqtt://10.0.0.5:1884/", Address("10.0.0.5", 1884, tls=False)),
        ("mqtt://[::1]:1884", Address("::1", 1884, tls=False)),
        ("MQTT://Broker.Lab:1", Address("broker.lab", 1, tls=False)),
    ],
)
def test_an_address(url: str, address: Address) -> None:
    assert address_of(url) == address
    assert BrokerConfig(url=url).address == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "broker:1883",
        "mqtt:broker",
        "mqtt://",
        "mqtt://:1883",
        "http://broker",
        "tcp://broker:1883",
        "mqtt://broker:port",
        "mqtt://broker:0",
        "mqtt://broker:70000",
        "mqtt://broker/path",
        "mqtt://broker?tls=1",
        "mqtt://[::1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected mqtt://host\[:port\] or mqtts://host\[:port\]"):
        address_of(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="password_file") as caught:
        address_of("mqtt://me:hunter2@broker")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("url: http://broker", "url http://broker: expected mqtt://host[:port] or mqtts://host[:port]"),
        ("password_file: /p", "password_file needs a username"),
        ("url: mqtts://broker\n  cert_file: /c", "cert_file and key_file go together"),
        ("ca_file: /c", "ca_file, cert_file and key_file need an mqtts:// url"),
        ("pasword_file: /p", "unknown key, did you mean password_file?"),
        ("url: 5", "expected str, got int"),
    ],
)
def test_faults_in_a_file(tmp_path: Path, lines: str, told: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f"broker:\n  {lines}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, Config)
    [fault] = caught.value.faults
    assert told in str(fault)
    assert fault.key.startswith("broker")


def test_relative_names_are_taken_from_where_the_configuration_lies() -> None:
    config = BrokerConfig(
        url="mqtts://b", username="u", password_file="p", ca_file="/abs/ca", cert_file="c/c", key_file="~/k"
    )
    beside = config.beside(Path("/etc/wattloop"))
    assert (beside.password_file, beside.ca_file, beside.cert_file, beside.key_file) == (
        "/etc/wattloop/p",
        "/abs/ca",
        "/etc/wattloop/c/c",
        str(Path.home() / "k"),
    )
    assert BrokerConfig().beside(Path("/etc")) == BrokerConfig()


def test_access_without_secrets() -> None:
    access = BrokerConfig().access()
    assert (access.username, access.password, access.tls) == (None, None, None)


def test_a_password_is_the_file_s_text_without_its_line_end(secret: Path) -> None:
    access = with_password(secret).access()
    assert (access.username, access.password) == ("jetson-1", "correct horse")


def test_a_password_does_not_show(secret: Path) -> None:
    assert "horse" not in repr(with_password(secret).access())


def test_a_changed_password_is_taken_up(secret: Path) -> None:
    config = with_password(secret)
    config.access()
    secret.write_text("battery staple")
    assert config.access().password == "battery staple"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o777])
def test_a_secret_that_others_can_read_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    expected = f"{secret}: password_file: mode {mode:04o}: expected mode 0600, for others can read it as it is"
    assert refusal(with_password(secret)) == expected


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_of_one_s_own_is_taken(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert with_password(secret).access().password == "correct horse"


def test_systemd_s_credentials_are_taken_as_they_come(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.chmod(0o440)  # the group is the mask of an access control list
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent))
    assert with_password(secret).access().password == "correct horse"


def test_a_password_file_that_is_missing_empty_or_no_text(tmp_path: Path, secret: Path) -> None:
    missing = tmp_path / "none"
    assert refusal(with_password(missing)) == (
        f"{missing}: password_file: No such file or directory: expected a file with mode 0600"
    )
    secret.write_text("\n")
    assert refusal(with_password(secret)) == f"{secret}: password_file: empty: expected a password on its first line"
    secret.write_bytes(b"\xff\xfe")
    assert "expected a readable text file" in refusal(with_password(secret))


def test_certificates_that_are_missing_or_are_none(tmp_path: Path, secret: Path) -> None:
    missing = str(tmp_path / "none.pem")
    assert refusal(BrokerConfig(url="mqtts://b", ca_file=missing)) == (
        f"{missing}: ca_file: No such file or directory: expected certificates in PEM form"
    )
    assert "expected certificates in PEM form" in refusal(BrokerConfig(url="mqtts://b", ca_file=str(secret)))
    rubbish = BrokerConfig(url="mqtts://b", cert_file=str(secret), key_file=str(secret))
    assert f"expected a certificate and its key ({secret})" in refusal(rubbish)


def test_a_key_that_others_can_read_is_refused(secret: Path) -> None:
    secret.chmod(0o644)
    config = BrokerConfig(url="mqtts://b", cert_file=str(secret), key_file=str(secret))
    assert "key_file: mode 0644" in refusal(config)


def test_tls_checks_the_broker_s_name() -> None:
    tls = BrokerConfig(url="mqtts://b").access().tls
    assert tls is not None
    assert tls.check_hostname
