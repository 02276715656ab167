import pytest

from coordinator.records import Tombstone
from coordinator.stream import MAX_RANGES, Stream
from hil.devices import Quality
from hil.wire import Lost, NodeState, Presence, Record


def records(*seqs):
    return [Record(seq, 1_000_000 * seq, "outlet-1", 15.0, None, 0, Quality.GOOD) for seq in seqs]


@pytest.fixture
def stream():
    return Stream.begin("jetson-1", "0123abcd")


def seqs(admitted):
    return [record.seq for record in admitted]


def test_a_run_is_admitted_once(stream):
    assert seqs(stream.admit(records(1, 2, 3))) == [1, 2, 3]
    assert seqs(stream.admit(records(1, 2, 3))) == []
    books = stream.books()
    assert (books.ranges, books.committed, books.duplicates) == (((1, 3),), 3, 3)


def test_an_overlapping_run_gives_the_new_ones_alone(stream):
    stream.admit(records(3, 4, 5))
    assert seqs(stream.admit(records(1, 2, 3, 4, 5, 6))) == [1, 2, 6]
    assert stream.books().duplicates == 3


@pytest.mark.parametrize("order", [(1, 3, 2), (1, 1, 1), (5, 6, 6, 8), (4, 3, 2, 1), (1, 5, 3)])
def test_any_order_within_a_message(stream, order):
    assert set(seqs(stream.admit(records(*order)))) == set(order)
    books = stream.books()
    assert books.committed == len(set(order))
    assert books.committed + books.duplicates == len(order)
    assert sum(last - first + 1 for first, last in books.ranges) == len(set(order))


def test_only_what_never_came_is_lost(stream):
    stream.admit(records(1, 2, 5))
    assert stream.declare_lost(Lost(2, 6, "spool full")) == [
        Tombstone("jetson-1", "0123abcd", 3, 4, "spool full"),
        Tombstone("jetson-1", "0123abcd", 6, 6, "spool full"),
    ]
    assert stream.books().lost == 3
    assert stream.declare_lost(Lost(2, 6, "spool full")) == []
    assert stream.books().lost == 3
    assert stream.books().ranges == ((1, 6),)


def test_goes_on_from_its_books(stream):
    stream.admit(records(1, 2, 4))
    later = Stream(stream.books())
    assert seqs(later.admit(records(2, 3, 4, 5))) == [3, 5]
    assert later.books().committed == 5


def test_frays_only_with_absurdly_many_holes(stream):
    stream.admit(records(*range(1, 2 * MAX_RANGES, 2)))
    assert not stream.frayed
    stream.admit(records(3 * MAX_RANGES))
    assert stream.frayed


def state(generated, stream="0123abcd"):
    return NodeState(state=Presence.DISCONNECTED, session=1, stream=stream, generated=generated)


def test_what_belongs_to_a_run_is_what_came_and_what_its_agent_still_has(stream):
    assert stream.books().generated(state(9)) == 0  # nothing came: whose count it is, nobody can tell
    stream.admit(records(1, 2, 5))
    assert stream.books().generated(None) == 5
    assert stream.books().generated(state(9)) == 9
    assert stream.books().generated(state(3)) == 5  # an older word
    assert stream.books().generated(state(9, stream="another")) == 5


def test_what_an_earlier_run_had_is_not_this_one_s(stream):
    stream.admit(records(101, 102, 105))
    assert stream.books().generated(state(110)) == 5
