import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.meters.modbus.blocks import Block, RegisterImage, merge
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register


def at(address: int, kind: str = "f32", function: int = 3) -> Register:
    return Register(quantity=Quantity.POWER_W, function=function, address=address, type=kind)


def spans(*registers: Register, **limits: int) -> list[tuple[int, int, int]]:
    return [(block.function, block.address, block.count) for block in merge(registers, **limits)]


def test_neighbours_are_read_together():
    assert spans(at(2), at(0), at(4)) == [(3, 0, 6)]


def test_a_gap_is_skipped_only_as_far_as_allowed():
    assert spans(at(0), at(5)) == [(3, 0, 2), (3, 5, 2)]
    assert spans(at(0), at(5), max_gap=2) == [(3, 0, 2), (3, 5, 2)]
    assert spans(at(0), at(5), max_gap=3) == [(3, 0, 7)]


def test_functions_are_not_mixed():
    assert spans(at(0), at(2, function=4)) == [(3, 0, 2), (4, 2, 2)]


def test_a_block_keeps_to_the_limit_and_cuts_no_register():
    assert spans(at(0), at(2), at(4), max_words=5) == [(3, 0, 4), (3, 4, 2)]


def test_registers_that_overlap_share_their_words():
    assert spans(at(0, "f64"), at(1, "u16")) == [(3, 0, 4)]


def test_a_block_is_split_where_it_skips_most():
    (block,) = merge([at(0), at(2), at(7), at(10)], max_gap=9)
    assert [(part.address, part.count) for part in block.split()] == [(0, 4), (7, 5)]


def test_a_block_without_gaps_is_split_all_the_same():
    (block,) = merge([at(0), at(2), at(4)])
    one, two = block.split()
    assert [*one.registers, *two.registers] == list(block.registers)


def test_an_image_gives_the_words_of_any_place_that_was_read():
    image = RegisterImage()
    image.add(Block(3, 10, 5), [1, 2, 3, 4, 5])
    image.add(Block(4, 12, 2), [8, 9])
    assert list(image.words(3, 10, 2)) == [1, 2]
    assert list(image.words(3, 14, 1)) == [5]
    assert list(image.words(4, 12, 2)) == [8, 9]


@pytest.mark.parametrize(("function", "address", "count"), [(3, 9, 1), (3, 9, 2), (3, 14, 2), (3, 15, 1), (4, 10, 2)])
def test_an_image_has_no_words_that_were_not_read(function: int, address: int, count: int):
    image = RegisterImage()
    image.add(Block(3, 10, 5), [1, 2, 3, 4, 5])
    with pytest.raises(LookupError):
        image.words(function, address, count)


@settings(deadline=None)
@given(
    registers=st.lists(
        st.builds(at, st.integers(0, 300), st.sampled_from(["u16", "f32", "u64"]), st.sampled_from([3, 4]))
    ),
    max_words=st.integers(4, 125),
    max_gap=st.integers(0, 125),
)
def test_every_register_lies_whole_in_one_block(registers: list[Register], max_words: int, max_gap: int):
    blocks = merge(registers, max_words, max_gap)
    found = [register for block in blocks for register in block.registers]
    assert sorted(found, key=repr) == sorted(set(registers), key=repr)
    for block in blocks:
        assert block.count <= max_words
        for register in block.registers:
            assert block.function == register.function
            assert block.address <= register.address
            assert register.end <= block.address + block.count
