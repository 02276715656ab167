from hil.demo.charts import chart, shrink


def test_a_ramp_fills_from_left_to_right() -> None:
    assert chart([0.0, 0.5, 1.0], height=1) == ["▁▄█"]
    assert chart([0.0, 0.5, 1.0], height=2) == ["  █", "▁██"]


def test_unknown_values_stay_blank() -> None:
    assert chart([None, 1.0], height=1) == [" █"]
    assert chart([None, None], height=2) == ["  ", "  "]


def test_a_fixed_scale_does_not_stretch() -> None:
    assert chart([0.5, 0.5], height=1, low=0.0, high=1.0) == ["▄▄"]


def test_many_values_become_means_of_what_is_known() -> None:
    assert shrink([1.0, 3.0, None, 5.0, None, None], 3) == [2.0, 5.0, None]
    assert len(chart(list(range(1440)), width=72)[0]) == 72
