"""The wire: what goes round unchanged, what is refused and with which code, and the topics."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil import wire
from hil.devices import Quality
from hil.wire import MAX_BYTES, MAX_DEPTH, Message, WireError, decode, encode

RECORD = wire.Record(7, 1_782_072_000_000_000, "board", 14.25, 3600.5, 2, Quality.GOOD)
DATA = wire.Data(stream="0123456789abcdef", r=[RECORD], lost=[wire.Lost(1, 6, "spool full")], hist=True)
COMMAND = wire.Command(
    id="0190-abcd",
    issuer="lab",
    epoch=42,
    seq=1187,
    target=wire.Target(node="jetson-1", actuator="board"),
    action=wire.Action.LIMIT,
    limit_w=7.5,
    issued_at=datetime(2026, 6, 21, 20, tzinfo=UTC),
    ttl_s=60.0,
    reason="night-saving",
)
MESSAGES: list[Message] = [
    DATA,
    COMMAND,
    wire.DataAck(stream="0123456789abcdef", upto=7, have=[(9, 12), (20, 20)]),
    wire.Last(t_us=1, power_w=None, quality=Quality.MISSING),
    wire.NodeState(state=wire.Presence.READY, session=3, generated=10, acked=8, spooled=2),
    wire.CoordinatorState(online=True, instance="a", epoch=3),
    wire.Heartbeat(epoch=3, count=99),
    wire.Ack(
        id="0190-abcd", issuer="lab", epoch=42, seq=1, actuator="board", state=wire.AckState.APPLIED, applied_w=7.5
    ),
    wire.Birth(
        node="jetson-1",
        version="0.1.0",
        boot_id="b",
        stream="0123456789abcdef",
        epoch=0,
        mode="act",
        nameplate_w=30.0,
        failsafe="release",
        sync="tick",
        clock_synchronised=None,
        meters=[wire.MeterInfo(name="pdu", kind="modbus", measures="jetson-1", interval_s=1.0)],
        actuators=[wire.ActuatorInfo(name="board", kind="emulated", actions=["limit"], min_w=5.0, max_w=15.0)],
    ),
    wire.LimitState(
        actuator="board", desired_w=7.5, effective_w=7.5, source="lab", state="controlled", valid_until=None
    ),
    wire.MicrogridState(
        microgrid="home",
        step=1,
        steps_total=None,
        t=datetime(2026, 6, 21, 20, tzinfo=UTC),
        actors=[
            wire.ActorState(name="solar", p_w=12.0, quality=Quality.GOOD),
            wire.ActorState(name="jetson-1", p_w=-15.0, quality=Quality.STALE),
        ],
        p_delta_w=-3.0,
        p_battery_w=3.0,
        p_grid_w=0.0,
        p_unserved_w=0.0,
        p_curtailed_w=0.0,
        soc=0.5,
        min_soc=0.2,
        charge_power_w=None,
        islanded=True,
        carbon_g_per_kwh=None,
        price_per_mwh=None,
        emissions_g=0.0,
        quality=Quality.STALE,
    ),
]


def refusal(payload: bytes, kind: type[Message]) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(payload, kind)
    return caught.value


def command_with(**changes: object) -> bytes:
    """A command as JSON with some keys changed, without the checks of our own encoder."""
    plain = json.loads(encode(COMMAND))
    return json.dumps({**plain, **changes}).encode()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_goes_round_unchanged(message: Message) -> None:
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_unknown_keys_are_ignored_so_that_versions_mix(message: Message) -> None:
    plain = json.loads(encode(message))
    payload = json.dumps({**plain, "from_the_future": {"deep": [1, {"er": None}]}}).encode()
    assert decode(payload, type(message)) == message


def test_a_record_is_a_row() -> None:
    row = json.loads(encode(DATA))["r"][0]
    assert row == [7, 1_782_072_000_000_000, "board", 14.25, 3600.5, 2, "good"]


def test_instants_leave_in_utc() -> None:
    assert json.loads(encode(COMMAND))["issued_at"] == "2026-06-21T20:00:00Z"


def test_the_largest_message_is_taken_and_one_byte_more_is_not() -> None:
    payload = encode(COMMAND)
    full = payload[:-1] + b" " * (MAX_BYTES - len(payload)) + b"}"
    assert len(full) == MAX_BYTES
    assert decode(full, wire.Command) == COMMAND
    assert refusal(full[:-1] + b" }", wire.Command).code == "too_large"


@pytest.mark.parametrize("brackets", [b"[]", b"{}", b"mixed"])
def test_depth_is_counted_exactly(brackets: bytes) -> None:
    def nested(depth: int) -> bytes:
        kinds = [b"[]" if brackets == b"[]" or (brackets == b"mixed" and n % 2) else b"{}" for n in range(depth)]
        opening = b"".join(kind[:1] if kind == b"[]" else b'{"k":' for kind in kinds)
        return b'{"epoch":1,"count":2,"x":' + opening + b"0" + b"".join(kind[1:] for kind in reversed(kinds)) + b"}"

    assert decode(nested(MAX_DEPTH - 1), wire.Heartbeat) == wire.Heartbeat(epoch=1, count=2)
    assert refusal(nested(MAX_DEPTH), wire.Heartbeat).code == "too_deep"


def test_brackets_within_texts_are_not_depth() -> None:
    reason = '[[[[[[[[[[{{{{{{{{{{"\\[[[[[[[['
    command = msgspec.structs.replace(COMMAND, reason=reason)
    assert decode(encode(command), wire.Command).reason == reason


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[" * MAX_BYTES, id="only opening"),
        pytest.param(b"[" * (MAX_BYTES // 2) + b"]" * (MAX_BYTES // 2), id="deep"),
        pytest.param(b'{"a":' * 10_000, id="deep objects"),
        pytest.param(b'"' * MAX_BYTES, id="quotes"),
        pytest.param(b'"' + b"\\" * (MAX_BYTES - 1), id="backslashes"),
        pytest.param(b'"' + b" " * (MAX_BYTES - 1), id="a text without end"),
    ],
)
def test_hostile_structure_is_refused(payload: bytes) -> None:
    assert refusal(payload, wire.Heartbeat).code in {"too_deep", "malformed"}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        b"{",
        b'{"epoch":1,"count":2}x',
        b'{"epoch":1,"count":2}{"epoch":1,"count":2}',
        b'\xef\xbb\xbf{"epoch":1,"count":2}',
        b"\xff\xfe\x00",
        b'{"epoch":1}',
        b'{"epoch":1,"count":-1}',
        b'{"epoch":1,"count":1.5}',
        b'{"epoch":1,"count":"2"}',
        b'{"epoch":1,"count":true}',
        b'{"epoch":1,"count":null}',
        b'{"epoch":1,"count":1e400}',
        b'{"epoch":1,"count":99999999999999999999}',
        b'{"epoch":1,"count":9007199254740993}',
        b'{"epoch":1,"count":2,"x":NaN}',
        b'{"epoch":1,"count":2,"x":Infinity}',
        b'{"epoch":1,"count":2,"x":-Infinity}',
        b"{'epoch':1,'count':2}",
        b'{"epoch":1,"count":2,}',
    ],
)
def test_what_is_not_such_a_message_is_refused(payload: bytes) -> None:
    error = refusal(payload, wire.Heartbeat)
    assert error.code == "malformed"
    assert str(error).startswith("malformed: ")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b'{"epoch":1,"count":2,"epoch":9}', id="plain"),
        pytest.param(b'{"epoch":1,"count":2,"epoch"  :9}', id="space before the colon"),
        pytest.param(b'{"epoch":1,"count":2,"\\u0065poch":9}', id="escaped"),
        pytest.param(b'{"epoch":1,"count":2,"x":{"a":1,"a":1}}', id="within an unknown key"),
        pytest.param(b'{"v":"x",":k":1,":k":2,"epoch":1,"count":2}', id="key with a colon"),
        pytest.param(b'{"epoch":1,"count":2,"x":"\\"","count":3}', id="after an escaped quote"),
    ],
)
def test_duplicate_keys_are_refused(payload: bytes) -> None:
    error = refusal(payload, wire.Heartbeat)
    assert (error.code, "more than once" in error.what) == ("malformed", True)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b'{"epoch":1,"count":2,"x":{"epoch":1}}', id="at another level"),
        pytest.param(b'{"epoch":1,"count":2,"x":[{"a":1},{"a":2}]}', id="in two objects"),
        pytest.param(b'{"epoch":1,"count":2,"x":"epoch","y":"epoch"}', id="as values"),
        pytest.param(b'{"epoch":1,"count":2,"x":["a",":","a",":"]}', id="as values beside colons"),
    ],
)
def test_the_same_name_elsewhere_is_no_duplicate(payload: bytes) -> None:
    assert decode(payload, wire.Heartbeat) == wire.Heartbeat(epoch=1, count=2)


@pytest.mark.parametrize("junk", [b'"\xff"', b"9" * 5_000], ids=["bad UTF-8", "thousands of digits"])
def test_junk_beside_a_repeated_name_is_refused_like_any_other(junk: bytes) -> None:
    payload = b'{"epoch":1,"count":2,"x":[{"a":1},{"a":2}],"y":' + junk + b"}"
    try:
        decode(payload, wire.Heartbeat)
    except WireError as error:
        assert error.code == "malformed"  # noqa: PT017  # taken or refused, but never another error


def test_thousands_of_keys_with_one_duplicate_are_refused_at_once() -> None:
    names = [f'"k{n}":1' for n in range(5_000)]
    payload = ("{" + ",".join([*names, '"k0":2', '"epoch":1', '"count":2']) + "}").encode()
    assert "k0" in refusal(payload, wire.Heartbeat).what


@pytest.mark.parametrize(
    "changes",
    [
        {"ttl_s": 0},
        {"ttl_s": 4.999},
        {"ttl_s": 3600.1},
        {"ttl_s": None},
        {"ttl_s": "60"},
        {"epoch": 0},
        {"epoch": -1},
        {"epoch": 2**53 + 1},
        {"seq": 0},
        {"seq": 1.5},
        {"id": "short"},
        {"id": "x" * 65},
        {"id": "with space!"},
        {"issuer": "Lab"},
        {"issuer": ""},
        {"issuer": "-lab"},
        {"issuer": "x" * 64},
        {"target": {"node": "jetson/1", "actuator": "board"}},
        {"target": {"node": "jetson-1"}},
        {"target": "jetson-1"},
        {"action": "explode"},
        {"action": None},
        {"on_expiry": "never"},
        {"priority": 1001},
        {"priority": -1},
        {"issued_at": "2026-06-21T20:00:00"},
        {"issued_at": "yesterday"},
        {"issued_at": 1782072000},
        {"limit_w": "7.5"},
        {"limit_w": True},
        {"profile": "No Such Name"},
        {"reason": "x" * 501},
    ],
    ids=str,
)
def test_a_command_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    assert refusal(command_with(**changes), wire.Command).code == "malformed"


def test_a_missing_limit_is_not_zero() -> None:
    plain = json.loads(encode(COMMAND))
    del plain["limit_w"]
    assert decode(json.dumps(plain).encode(), wire.Command).limit_w is None


@pytest.mark.parametrize(
    "row",
    [
        [0, 1, "m", 1.0, None, 0, "good"],
        [1, -1, "m", 1.0, None, 0, "good"],
        [1, 1, "M", 1.0, None, 0, "good"],
        [1, 1, "m", "1.0", None, 0, "good"],
        [1, 1, "m", 1e13, None, 0, "good"],
        [1, 1, "m", 1.0, None, -1, "good"],
        [1, 1, "m", 1.0, None, 0, "perfect"],
        [1, 1, "m", 1.0, None, 0],
        {"seq": 1},
    ],
    ids=str,
)
def test_one_bad_record_spoils_its_batch(row: object) -> None:
    payload = json.dumps({"stream": "0123456789abcdef", "r": [list(msgspec.to_builtins(RECORD)), row]}).encode()
    assert refusal(payload, wire.Data).code == "malformed"


def test_a_missing_sample_travels_without_a_value() -> None:
    missing = wire.Record(8, 1, "board", None, None, 0, Quality.MISSING)
    data = msgspec.structs.replace(DATA, r=[missing])
    assert decode(encode(data), wire.Data).r == [missing]


def test_a_batch_is_bounded() -> None:
    full = msgspec.structs.replace(DATA, r=[RECORD] * wire.MAX_RECORDS)
    assert len(decode(encode(full), wire.Data).r) == wire.MAX_RECORDS
    over = msgspec.structs.replace(DATA, r=[RECORD] * (wire.MAX_RECORDS + 1))
    assert refusal(encode(over), wire.Data).code == "malformed"


@pytest.mark.parametrize("stream", ["", "xyz", "0123456", "0123456789ABCDEF", "a" * 33])
def test_a_stream_is_named_in_hexadecimal(stream: str) -> None:
    assert refusal(encode(msgspec.structs.replace(DATA, stream=stream)), wire.Data).code == "malformed"


def test_not_a_number_never_arrives_as_a_number() -> None:
    last = wire.Last(t_us=1, power_w=float("nan"), quality=Quality.GOOD)
    assert decode(encode(last), wire.Last).power_w is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(payload: bytes) -> None:
    for kind in (wire.Command, wire.Data, wire.Heartbeat):
        try:
            decode(payload, kind)
        except WireError as error:
            assert error.code in {"too_large", "too_deep", "malformed"}  # noqa: PT017  # any other error would escape


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_damaged_message_is_a_message_or_a_wire_error(message: Message, data: st.DataObject) -> None:
    payload = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(payload), type(message))
    except WireError as error:
        assert error.code in {"too_large", "too_deep", "malformed"}  # noqa: PT017  # any other error would escape


def test_topics() -> None:
    topics = wire.Topics("lab")
    node = topics.node("jetson-1")
    base = "wattloop/v1/lab/node/jetson-1"
    assert (node.birth, node.state, node.data, node.data_ack) == (
        f"{base}/birth",
        f"{base}/state",
        f"{base}/data",
        f"{base}/data/ack",
    )
    assert (node.cmd, node.cmd_ack, node.limit, node.last("pdu")) == (
        f"{base}/cmd",
        f"{base}/cmd/ack",
        f"{base}/limit",
        f"{base}/last/pdu",
    )
    assert topics.coordinator_state == "wattloop/v1/lab/coordinator/state"
    assert topics.heartbeat == "wattloop/v1/lab/coordinator/heartbeat"
    assert topics.signal("price") == "wattloop/v1/lab/signal/price"
    assert topics.microgrid("home") == "wattloop/v1/lab/microgrid/home/state"
    assert topics.node("+").cmd == "wattloop/v1/lab/node/+/cmd"


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("wattloop/v1/lab/node/jetson-1/data", ("jetson-1", "data")),
        ("wattloop/v1/lab/node/jetson-1/cmd/ack", ("jetson-1", "cmd/ack")),
        ("wattloop/v1/lab/node/jetson-1", None),
        ("wattloop/v1/lab/coordinator/state", None),
        ("wattloop/v1/other/node/jetson-1/data", None),
        ("wattloop/v2/lab/node/jetson-1/data", None),
        ("", None),
    ],
)
def test_the_node_of_a_topic(topic: str, expected: tuple[str, str] | None) -> None:
    assert wire.Topics("lab").node_of(topic) == expected
