import msgspec
import pytest

from hil.emulated.load import Load


def demand(text: str):
    return msgspec.json.decode(text, type=Load).demand()


def test_constant_load_never_changes():
    assert [demand('{"kind": "constant", "power_w": 15}')(t_s) for t_s in (0.0, 1e6)] == [15.0, 15.0]


def test_points_are_held_until_the_next():
    at = demand('{"kind": "points", "points": [[10, 3], [20, 15]]}')
    assert [at(t_s) for t_s in (0.0, 10.0, 19.9, 20.0, 1e6)] == [3, 3, 3, 15, 15]


def test_points_joined_by_lines():
    at = demand('{"kind": "points", "points": [[10, 3], [20, 15]], "between": "line"}')
    assert [at(t_s) for t_s in (0.0, 10.0, 15.0, 20.0, 30.0)] == [3, 3, 9, 15, 15]


def test_points_start_again():
    at = demand('{"kind": "points", "points": [[0, 3], [5, 15]], "repeat_s": 10}')
    assert [at(t_s) for t_s in (4.0, 5.0, 9.9, 10.0, 15.0, 1000.0)] == [3, 15, 15, 3, 15, 3]


@pytest.mark.parametrize("points", ["[]", "[[5, 1], [5, 2]]", "[[5, 1], [4, 2]]", "[[0, -1]]"])
def test_points_out_of_order_or_below_zero_are_refused(points: str):
    with pytest.raises(msgspec.ValidationError):
        demand(f'{{"kind": "points", "points": {points}}}')


def test_sine_turns_around_its_mean_and_never_below_zero():
    at = demand('{"kind": "sine", "mean_w": 10, "amplitude_w": 12, "period_s": 60}')
    assert [at(t_s) for t_s in (0.0, 15.0, 30.0, 45.0)] == pytest.approx([10, 22, 10, 0])


WALK = '{"kind": "walk", "min_w": 5, "max_w": 15, "step_w": 2, "every_s": 1, "seed": %d}'


def test_walk_stays_in_bounds_and_moves_only_at_its_steps():
    at = demand(WALK % 1)
    powers = [at(t_s / 2) for t_s in range(4000)]
    assert min(powers) == 5
    assert max(powers) == 15
    assert powers[0::2] == powers[1::2]
    assert len(set(powers)) > 1000


def test_walk_depends_on_its_seed_alone():
    times = [0.0, 3.0, 50.0]
    one, again, another, often = demand(WALK % 1), demand(WALK % 1), demand(WALK % 2), demand(WALK % 1)
    for t_s in range(50):
        often(t_s)
    assert [one(t_s) for t_s in times] == [again(t_s) for t_s in times]
    assert one(50.0) == often(50.0)
    assert one(50.0) != another(50.0)
