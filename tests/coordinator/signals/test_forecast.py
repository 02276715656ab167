from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from coordinator.signals.forecast import ForecastTrace, read_forecast
from coordinator.signals.table import microseconds
from coordinator.signals.unit import unit_of
from hil.yamlfile import ConfigError

TEXT = """\
issued,time,solar_w
2026-04-15T06:00Z,2026-04-15T06:00Z,0
2026-04-15T06:00Z,2026-04-15T12:00Z,0.03
2026-04-15T00:00Z,2026-04-15T00:00Z,0
2026-04-15T00:00Z,2026-04-15T12:00Z,0.04
"""
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)


def read(path: Path, text: str = TEXT) -> ForecastTrace:
    path.write_text(text, encoding="utf-8")
    return read_forecast(path, unit=unit_of("kW"), zone=ZoneInfo("America/Los_Angeles"))


def at(hour: float) -> int:
    return microseconds(datetime(2026, 4, 15, tzinfo=UTC) + timedelta(hours=hour))


def test_the_newest_forecast_issued_by_now_counts(tmp_path: Path) -> None:
    trace = read(tmp_path / "forecast.csv")
    for hour, expected_w in ((0, 40.0), (5.99, 40.0), (6, 30.0), (23, 30.0)):
        forecast = trace.newest(at(hour))
        assert forecast is not None
        assert forecast.between(NOON, NOON + timedelta(hours=1)) == (expected_w,)


def test_before_the_first_issue_there_is_none(tmp_path: Path) -> None:
    trace = read(tmp_path / "forecast.csv")
    assert trace.newest(at(-1)) is None
    assert trace.at(at(-1)) is None


def test_its_value_now_is_what_it_says_of_now(tmp_path: Path) -> None:
    trace = read(tmp_path / "forecast.csv")
    assert [trace.at(at(hour)) for hour in (3, 7, 12, 13)] == [0.0, 0.0, 30.0, 30.0]


def test_times_are_in_the_scenarios_zone(tmp_path: Path) -> None:
    forecast = read(tmp_path / "forecast.csv").newest(at(0))
    assert forecast is not None
    assert forecast.issued.isoformat() == "2026-04-14T17:00:00-07:00"
    assert forecast.points[1].time == NOON


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("2026-04-15T00:00Z,2026-04-15T12:00Z,1", ":6: column time: 2026-04-15T12:00Z: expected the times of an issue"),
        ("2026-04-15T00:00,2026-04-15T13:00Z,1", ":6: column issued: 2026-04-15T00:00: has no zone"),
        ("2026-04-15T00:00Z,2026-04-15T13:00Z,nan", ":6: column solar_w: nan: expected a number"),
    ],
)
def test_faults_name_row_and_column(tmp_path: Path, row: str, expected: str) -> None:
    path = tmp_path / "forecast.csv"
    with pytest.raises(ConfigError) as raised:
        read(path, TEXT + row + "\n")
    (fault,) = raised.value.faults
    assert str(fault).startswith(f"{path}{expected}")
