"""Messages on their way: bounds, order, second tries and expiry."""

from hil.outbox import MAX_BYTES, MAX_MESSAGES, MAX_TRIES, Outbox, Outgoing


def message(text: str = "x", *, qos: int = 1, expires: float | None = None) -> Outgoing:
    return Outgoing("topic", text.encode(), qos, retain=False, expires=expires, since=0.0)


def filled(*messages: Outgoing) -> Outbox:
    outbox = Outbox()
    for mid, one in enumerate(messages):
        outbox.sent(mid, one, now=float(mid))
    return outbox


class Wire:
    """Stands for a connection that takes so many messages and then breaks."""

    def __init__(self, takes: int = 1_000, first_mid: int = 100) -> None:
        self.sent: list[str] = []
        self._takes = takes
        self._first_mid = first_mid

    def send(self, one: Outgoing) -> int | None:
        if len(self.sent) >= self._takes:
            return None
        self.sent.append(one.payload.decode())
        return self._first_mid + len(self.sent)


def test_it_is_empty_once_all_is_acknowledged() -> None:
    outbox = filled(message("a"), message("b"))
    assert not outbox.empty
    first, second = outbox.acknowledged(1), outbox.acknowledged(0)
    assert first is not None
    assert second is not None
    assert (first.payload, second.payload) == (b"b", b"a")
    assert outbox.acknowledged(0) is None
    assert outbox.empty


def test_it_is_bounded_in_messages_and_in_bytes() -> None:
    outbox = filled(*[message() for _ in range(MAX_MESSAGES - 1)])
    assert outbox.takes(b"x")
    outbox.sent(MAX_MESSAGES, message(), now=0.0)
    assert not outbox.takes(b"")
    large = filled(message("x" * (MAX_BYTES - 10)))
    assert large.takes(b"x" * 10)
    assert not large.takes(b"x" * 11)
    large.acknowledged(0)
    assert large.takes(b"x" * MAX_BYTES)


def test_the_oldest_is_the_first_unacknowledged() -> None:
    outbox = filled(message(), message(), message())
    assert outbox.oldest() == 0.0
    outbox.acknowledged(0)
    assert outbox.oldest() == 1.0
    outbox.acknowledged(1)
    outbox.acknowledged(2)
    assert outbox.oldest() is None


def test_after_a_loss_what_was_unacknowledged_goes_out_again_in_order() -> None:
    outbox = filled(message("a"), message("b"), message("c"), message("d", qos=0))
    outbox.acknowledged(1)
    outbox.connection_lost()
    assert outbox.oldest() is None  # nothing waits for the broker while there is none
    wire = Wire()
    assert outbox.send_waiting(wire.send, now=50.0) == []
    assert wire.sent == ["a", "c"]
    assert outbox.oldest() == 50.0
    assert not outbox.empty


def test_a_second_loss_in_the_midst_of_it_keeps_the_order() -> None:
    outbox = filled(message("a"), message("b"), message("c"))
    outbox.connection_lost()
    outbox.send_waiting(Wire(takes=2).send, now=1.0)
    outbox.connection_lost()
    wire = Wire(first_mid=200)
    outbox.send_waiting(wire.send, now=2.0)
    assert wire.sent == ["a", "b", "c"]


def test_what_has_expired_is_given_up() -> None:
    outbox = filled(message("late", expires=10.0), message("in time", expires=20.0), message("for ever"))
    outbox.connection_lost()
    wire = Wire()
    [late] = outbox.send_waiting(wire.send, now=10.0)
    assert late.payload == b"late"
    assert wire.sent == ["in time", "for ever"]


def test_what_breaks_every_connection_is_given_up() -> None:
    outbox = filled(message("poison"))
    sent = 1
    while not outbox.empty:
        outbox.connection_lost()
        wire = Wire()
        given_up = outbox.send_waiting(wire.send, now=0.0)
        sent += len(wire.sent)
    assert sent == MAX_TRIES
    assert [one.payload for one in given_up] == [b"poison"]


def test_bytes_are_accounted_over_a_loss() -> None:
    outbox = filled(message("x" * (MAX_BYTES // 2)), message("x" * (MAX_BYTES // 2), qos=0))
    assert not outbox.takes(b"x")
    outbox.connection_lost()
    assert outbox.takes(b"x" * (MAX_BYTES // 2))
    assert not outbox.takes(b"x" * (MAX_BYTES // 2 + 1))
    outbox.send_waiting(Wire().send, now=0.0)
    assert not outbox.takes(b"x" * (MAX_BYTES // 2 + 1))
    outbox.acknowledged(101)
    assert outbox.takes(b"x" * MAX_BYTES)


def test_remaining_seconds_are_rounded_up() -> None:
    one = message(expires=60.0)
    assert [one.remaining_s(now) for now in (0.0, 0.1, 59.0, 59.5, 60.0, 99.0)] == [60, 60, 1, 1, 0, 0]
    assert message().remaining_s(1e9) is None
