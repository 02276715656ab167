"""How to reach a broker, as it stands in a configuration file, and the secrets it names.

broker:
  url: mqtts://broker.lab.example:8883   # or mqtt://host[:1883]
  username: jetson-1
  password_file: /etc/wattloop/credentials/mqtt.password   # mode 0600
  ca_file: /etc/wattloop/ca.pem          # default: the system's
  cert_file: /etc/wattloop/jetson-1.pem  # mutual TLS
  key_file: /etc/wattloop/credentials/jetson-1.key
"""

import os
import ssl
import stat
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from hil.yamlfile import ConfigError, Fault, Section

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
URL_FORM: Final = "expected mqtt://host[:port] or mqtts://host[:port]"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens, and whether it speaks TLS there."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection shows the broker, as read from the files; ``tls`` is None for plain TCP."""

    username: str | None
    password: str | None = field(repr=False)
    tls: ssl.SSLContext | None


class BrokerConfig(Section, frozen=True, kw_only=True):
    """The section ``broker``. Secrets are named by file, never written in it. Raises ValueError when it contradicts."""

    url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        tls = self.address.tls
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if not tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file, cert_file and key_file need an mqtts:// url")

    @property
    def address(self) -> Address:
        """Where ``url`` leads. Raises ValueError with the form that was expected."""
        return address_of(self.url)

    def beside(self, directory: Path) -> "BrokerConfig":
        """The same with relative file names taken from ``directory``, where the configuration lies."""
        names = ("password_file", "ca_file", "cert_file", "key_file")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        absolute = {name: str(directory / Path(value).expanduser()) for name, value in given.items()}
        return msgspec.structs.replace(self, **absolute)

    def access(self) -> Access:
        """Read the files; each time anew, so that renewed ones are taken up. Blocks. Raises ConfigError."""
        password = None if self.password_file is None else _password(Path(self.password_file))
        return Access(self.username, password, self._tls() if self.address.tls else None)

    def _tls(self) -> ssl.SSLContext:
        context = _trusting(self.ca_file)
        if self.cert_file is not None and self.key_file is not None:
            _refuse_readable("key_file", Path(self.key_file))
            try:
                # The empty passphrase keeps OpenSSL from asking for one on a terminal that nobody watches.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                raise _fault(
                    "cert_file", self.cert_file, error, f"a certificate and its key ({self.key_file})"
                ) from error
        return context


def address_of(url: str) -> Address:
    """Host, port and transport of ``mqtt://host[:port]``. Raises ValueError with the form that was expected."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url {url}: {URL_FORM}") from error
    if parts.scheme not in PORTS or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise ValueError(f"url {url}: {URL_FORM}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"url of {parts.hostname}: {URL_FORM}; name the user in username, the password in password_file"
        )
    return Address(parts.hostname, port or PORTS[parts.scheme], tls=parts.scheme == "mqtts")


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise _fault("ca_file", str(ca_file), error, "certificates in PEM form") from error


def _password(path: Path) -> str:
    _refuse_readable("password_file", path)
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _fault("password_file", str(path), error, "a readable text file") from error
    if not password:
        raise ConfigError([Fault(str(path), None, "password_file", "empty", "expected a password on its first line")])
    return password


def _refuse_readable(key: str, path: Path) -> None:
    """Refuse a secret that others on this machine can read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _fault(key, str(path), error, "a file with mode 0600") from error
    # systemd hands out credentials by an access control list, which shows as a group permission that nobody has.
    if mode & 0o077 and path.parent != Path(os.environ.get("CREDENTIALS_DIRECTORY", "-")):
        expected = "expected mode 0600, for others can read it as it is"
        raise ConfigError([Fault(str(path), None, key, f"mode {mode:04o}", expected)])


def _fault(key: str, value: str, error: Exception, expected: str) -> ConfigError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ConfigError([Fault(value, None, key, reason, f"expected {expected}")])
