from agent.spool.row import Batch, checksum, intact, place, position, row_of
from hil.devices import Quality
from hil.wire import Lost, Record

RECORD = Record(7, 1_750_000_000_000_000, "outlet-1", 14.98, 120.5, 2, Quality.GOOD)


def test_a_position_is_generation_and_sequence() -> None:
    assert place(position(3, 7)) == (3, 7)
    assert position(3, (1 << 40) - 1) < position(4, 1)


def test_a_row_gives_back_its_record() -> None:
    assert intact(*row_of(3, RECORD)) == RECORD


def test_any_flipped_bit_is_seen() -> None:
    at, crc, body = row_of(3, RECORD)
    for index in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[index // 8] ^= 1 << index % 8
        assert intact(at, crc, bytes(flipped)) is None
    for bit in range(32):
        assert intact(at, crc ^ 1 << bit, body) is None
        assert intact(at ^ 1 << bit, crc, body) is None


def test_a_row_under_another_number_is_not_taken() -> None:
    _, _, body = row_of(3, RECORD)
    elsewhere = position(3, 8)
    assert intact(elsewhere, checksum(elsewhere, body), body) is None


def test_a_body_of_another_type_is_not_taken() -> None:
    at, crc, _ = row_of(3, RECORD)
    assert intact(at, crc, "text") is None
    assert intact(at, crc, None) is None


def test_a_batch_speaks_of_samples_and_tombstones() -> None:
    records = [Record(seq, 1, "m", 1.0, None, 0, Quality.GOOD) for seq in (4, 5, 9)]
    assert Batch("ab", 1, records, [Lost(6, 7, "spool_full")]).ranges == ((4, 7), (9, 9))
