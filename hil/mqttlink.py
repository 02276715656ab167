"""One connection to an MQTT broker, in a thread of its own: the only importer of paho.

A ``Link`` serves a single connection and is then done with; whoever wants another makes another. Its thread only
appends what happened to a queue on the event loop's side; everything else is called on the event loop.
"""

import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hil.brokerconfig import Access, BrokerConfig
from hil.bus import Inbound, Will
from hil.clock import Clock
from hil.yamlfile import ConfigError

KEEPALIVE_S: Final = 15
LOOP_S: Final = 1.0
# What the broker may send us in one packet (MQTT 5): more than the wire allows, so that the decoder sees and counts it.
MAX_PACKET: Final = 1 << 20
GOODBYE_S: Final = 0.5
# The library waits with select(2), which knows 1,024 descriptors and fails in silence beyond; it opens two more itself.
MAX_DESCRIPTOR: Final = 1_022
UNSUPPORTED_VERSION: Final = 0x84
TAKEN_OVER: Final = 0x8E
CLOSED: Final = "the connection was closed"
LOGIN_REFUSALS: Final = frozenset({0x86, 0x87, 0x8C})

log = logging.getLogger(__name__)


class Version(StrEnum):
    """What a link speaks, as people write it."""

    V5 = "MQTT 5"
    V311 = "MQTT 3.1.1"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker has let us in; ``max_packet`` is the largest packet it takes, where it says so."""

    max_packet: int | None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's answer to a SUBSCRIBE: per filter an empty text, or why it was refused."""

    mid: int
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker has a message (QoS 1), or the socket has (QoS 0); ``refusal`` says why the broker did not take it."""

    mid: int
    refusal: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The link is over. ``unanswered``: the connection was closed before the broker had said a word."""

    why: str
    unanswered: bool = False
    version_refused: bool = False


Event = Accepted | Subscribed | Acked | Ended


class TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, for then paho knows nothing of it yet."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands. Raises OSError, ssl.SSLError among them."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class Link:
    """A connection to the broker from its first packet to its last. ``open`` starts it; it ends with one ``Ended``.

    ``deliver`` and ``tell`` are called in the link's thread and say whether anybody is still there to listen.
    """

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        will: Will | None,
        version: Version,
        clock: Clock,
        deliver: Callable[[Inbound], bool],
        tell: Callable[["Link", Event], bool],
    ) -> None:
        self.version = version
        self._config = config
        self._client_id = client_id
        self._will = will
        self._clock = clock
        self._deliver = deliver
        self._tell = tell
        self._client: Client | None = None
        self._thread = threading.Thread(target=self._serve, name=f"mqtt-{client_id}", daemon=True)
        # Written on the event loop, read by the thread.
        self._closing = False
        self._abandoned = False
        # The thread's own.
        self._opened = False
        self._answered = False
        self._version_refused = False
        self._why = ""

    # --- on the event loop ---

    def open(self) -> None:
        """Start connecting."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, expiry_s: int | None) -> int | None:
        """The message's id, to know its ``Acked`` by; None when the link is gone. Raises ValueError for a bad topic."""
        client = self._client
        if client is None:
            return None
        properties = None
        if expiry_s is not None and self.version is Version.V5:
            properties = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry_s)
        info = client.publish(topic, payload, qos, retain, properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, filters: Sequence[str]) -> int | None:
        """The request's id, to know its ``Subscribed`` by; None when the link is gone."""
        client = self._client
        if client is None:
            return None
        code, mid = client.subscribe([(topic_filter, 1) for topic_filter in filters])
        return mid if code == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self) -> None:
        """Say goodbye once everything handed over is written: no will. Before it is open, just give up."""
        self._closing = True
        client = self._client
        if client is None or client.disconnect() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._abandoned = True

    def abandon(self, why: str) -> None:
        """Drop the connection without a goodbye, within a second or so."""
        self._why = self._why or why
        self._abandoned = True

    # --- in the thread ---

    def _serve(self) -> None:
        client: Client | None = None
        try:
            client = self._client = self._make_client(self._config.access())
            self._run(client)
        except ConfigError as error:
            self._why = str(error)
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
            self._why = describe(error)
        except Exception:  # the thread's supervisor: a fault of the library must not end in silence
            log.exception("MQTT link failed")
            self._why = "internal fault"
        finally:
            self._client = None
            if client is not None and (sock := client.socket()) is not None:
                sock.close()  # the library's other descriptors go with the client, to which nothing refers any more
            unanswered = self._opened and not self._answered and not self._abandoned
            if unanswered and self._why == CLOSED:
                self._why = self._closed_unanswered()
            self._tell(self, Ended(self._why or CLOSED, unanswered, self._version_refused))

    def _closed_unanswered(self) -> str:
        if self._config.address.tls and self._config.cert_file is None:
            return "the broker hung up; it may want a certificate (cert_file and key_file)"
        return "the broker hung up without an answer"

    def _run(self, client: Client) -> None:
        address = self._config.address
        if self.version is Version.V5:
            properties = _properties(PacketTypes.CONNECT, MaximumPacketSize=MAX_PACKET)
            client.connect(address.host, address.port, KEEPALIVE_S, clean_start=True, properties=properties)
        else:
            client.connect(address.host, address.port, KEEPALIVE_S)
        while not self._abandoned and client.loop(LOOP_S) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass

    def _make_client(self, access: Access) -> Client:
        v5 = self.version is Version.V5
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=None if v5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.username_pw_set(access.username, access.password)
        if access.tls is not None:
            access.tls.sslsocket_class = TidySocket
            client.tls_set_context(access.tls)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = _leave_writing_to_the_thread
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _say(self, event: Event) -> None:
        if not self._tell(self, event):
            self._abandoned = True

    def _on_socket_open(self, _client: Client, _userdata: object, sock: Any) -> None:
        # Without it a QoS 1 round trip waits for the peer's delayed acknowledgement: 88 ms instead of 0.4.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.fileno() >= MAX_DESCRIPTOR:
            raise OSError(errno.EMFILE, "too many open files in this process for an MQTT connection")
        self._opened = True

    def _on_socket_close(self, _client: Client, _userdata: object, sock: Any) -> None:
        if self._closing and not self._abandoned:
            _close_gently(sock)

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._answered = True
        if reason.is_failure:
            self._version_refused = reason.value == UNSUPPORTED_VERSION
            self._why = f"the broker refused {self._refused_part(reason.value)}: {reason.getName()}"
            return
        self._say(Accepted(getattr(properties, "MaximumPacketSize", None)))

    def _refused_part(self, code: int) -> str:
        if code not in LOGIN_REFUSALS:
            return "the connection"
        user = self._config.username
        return "the login without a user name" if user is None else f"the login of user {user}"

    def _on_subscribe(
        self, _client: Client, _userdata: object, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._say(Subscribed(mid, tuple(reason.getName() if reason.is_failure else "" for reason in reasons)))

    def _on_publish(
        self, _client: Client, _userdata: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._say(Acked(mid, reason.getName() if reason.is_failure else ""))

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        if self._abandoned:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # no topic of ours, and paho has logged nothing worse
        inbound = Inbound(topic, bytes(message.payload), message.retain, self._clock.monotonic())
        if not self._deliver(inbound):
            self._abandoned = True

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._why:  # a refusal, which says more
            return
        if flags.is_disconnect_packet_from_server:
            taken = f"; two programs must not share the client id {self._client_id}"
            self._why = f"the broker ended the connection: {reason.getName()}{taken * (reason.value == TAKEN_OVER)}"
        elif reason.getName() == "Keep alive timeout":
            self._why = f"the broker has been silent for {KEEPALIVE_S} s"
        else:
            self._why = CLOSED


def describe(error: Exception) -> str:
    """A connection error in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


def _properties(packet_type: int, **values: int) -> Properties:
    """MQTT 5 properties by their paho names."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def _leave_writing_to_the_thread(_client: Client, _userdata: object, _sock: object) -> None:
    """Being there is enough: without it paho writes to the socket in whichever thread publishes, unlocked."""


def _close_gently(sock: socket.socket) -> None:
    """Let the peer close first: closing with unread input resets the connection, which may overtake our goodbye."""
    try:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(GOODBYE_S)
        while sock.recv(65_536):
            pass
    except OSError:
        return  # gone already, or slow: we have done what we could
