from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.meters.base import MeterConfig
from agent.meters.pue import Pue, make_pue
from hil.yamlfile import ConfigError, Document, load


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def configured(tmp_path: Path, pue: str) -> tuple[Pue, list[str]]:
    """The PUE of a meter's configuration, and what is wrong with it."""
    path = tmp_path / "agent.yaml"
    path.write_text(f"name: m\npue: {pue}\n")
    document: Document[Any] = load(path, MeterConfig)
    made = make_pue(document.value.pue, document)
    return made, [str(fault).replace(f"{tmp_path}/", "") for fault in document.faults]


def factors(pue: Pue, *at: tuple[float, int]) -> list[tuple[float, bool]]:
    return [pue.at(*place) for place in at]


def test_a_constant(tmp_path: Path) -> None:
    pue, faults = configured(tmp_path, "2")
    assert (factors(pue, (0.0, 0), (1e6, 5)), faults) == ([(2.0, True)] * 2, [])


def test_a_curve_over_the_load_holds_its_ends(tmp_path: Path) -> None:
    pue, _ = configured(tmp_path, "{curve: [[200, 1.8], [1000, 1.4], [4000, 1.25]]}")
    found = factors(pue, *((load_w, 0) for load_w in (-5, 200, 600, 1000, 2500, 4000, 9000)))
    assert found == [(factor, True) for factor in (1.8, 1.8, pytest.approx(1.6), 1.4, pytest.approx(1.325), 1.25, 1.25)]


def test_a_file_with_dates_is_trusted_as_far_as_it_reaches(tmp_path: Path) -> None:
    (tmp_path / "pue.csv").write_text("time,pue\n2026-06-21T00:00:00Z,1.2\n2026-06-21T12:00:00Z,1.5\n")
    pue, faults = configured(tmp_path, "{file: pue.csv}")
    times = ("2026-06-20T23:59:59", "2026-06-21T00:00:00", "2026-06-21T11:59:59", "2026-06-21T23:59:59")
    found = factors(pue, *((0.0, us(time)) for time in (*times, "2026-06-22T00:00:01")))
    assert found == [(1.2, False), (1.2, True), (1.2, True), (1.5, True), (1.5, False)]
    assert faults == []


def test_a_day_repeats(tmp_path: Path) -> None:
    (tmp_path / "pue.csv").write_text("t_s,pue\n21600,1.2\n64800,1.5\n")
    pue, _ = configured(tmp_path, "{file: pue.csv}")
    times = ("2026-06-21T05:00:00", "2026-06-21T06:00:00", "2027-01-01T17:59:59", "2027-01-01T18:00:00")
    assert factors(pue, *((0.0, us(time)) for time in times)) == [(1.5, True), (1.2, True), (1.2, True), (1.5, True)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("t_s,pue\n0,0.9\n", "pue.csv:2: pue: 0.9: expected a number of at least 1"),
        ("t_s,pue\n0,\n", "pue.csv:2: pue: empty: expected a number of at least 1"),
        ("t_s,pue\n0,inf\n", "pue.csv:2: pue: inf: expected a number of at least 1"),
        (
            "t_s,pue\n0,1.2\n86400,1.3\n",
            "pue.csv: t_s: beyond a day: expected seconds of the day, from 0 to 86400; or time",
        ),
        ("t_s,power_w\n0,1.2\n", "pue.csv:1: header: t_s,power_w: expected a header with t_s or time, and pue"),
        ("t_s,pue\n", "pue.csv: rows: none: expected at least one row below the header"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "pue.csv").write_text(text)
    assert configured(tmp_path, "{file: pue.csv}")[1] == [fault]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert configured(tmp_path, "{file: pue.csv}")[1] == ["pue.csv: file: unreadable: No such file or directory"]


@pytest.mark.parametrize(
    ("pue", "fault"),
    [
        ("0.9", "pue: 0.9: expected `float` >= 1"),
        ("{}", "pue: {}: expected either curve or file"),
        ("{file: a, curve: [[1, 1], [2, 1]]}", "expected either curve or file"),
        ("{curve: [[1, 1]]}", "expected `array` of length >= 2"),
        ("{curve: [[2, 1.2], [1, 1.1]]}", "expected loads that rise"),
        ("{curve: [[1, 0.5], [2, 1.1]]}", "pue.curve[0]"),
        ("high", "pue: high: expected"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, pue: str, fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, pue)
    assert fault.replace("`", "") in str(refused.value)
