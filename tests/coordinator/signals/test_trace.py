import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.signals.series import Series
from coordinator.signals.table import microseconds
from coordinator.signals.trace import read_trace
from coordinator.signals.unit import unit_of
from hil.clock import utc
from hil.yamlfile import ConfigError

START_US = 1_776_236_400_000_000  # 2026-04-15T00:00:00-07:00


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, unit: str = "W", **how: str) -> Series:
    return read_trace(path, unit=unit_of(unit), start_us=START_US, **how)  # type: ignore[arg-type]


def faults(path: Path, **how: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(path, **how)
    return [str(fault).removeprefix(str(path)) for fault in raised.value.faults]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_instants_of_any_zone_are_the_same_instants(trace: Path) -> None:
    write(trace, "time,load\n2026-04-15T00:00:00-07:00,1\n2026-04-15T07:05:00Z,2\n2026-04-15 09:10:00+02:00,3\n")
    assert [t_us - START_US for t_us in read(trace).times_us] == [0, 300_000_000, 600_000_000]
    assert utc(START_US).isoformat() == "2026-04-15T07:00:00+00:00"
    assert microseconds(utc(START_US)) == START_US


def test_instants_through_a_change_of_the_clocks_stay_in_order(trace: Path) -> None:
    write(trace, "time,load\n2026-11-01T01:30:00-07:00,1\n2026-11-01T01:30:00-08:00,2\n")
    first, second = read(trace).times_us
    assert second - first == 3600 * 1_000_000


def test_offsets_count_from_the_start(trace: Path) -> None:
    write(trace, "time_s,load\n0,1\n1.5,2\n")
    assert list(read(trace).times_us) == [START_US, START_US + 1_500_000]


def test_values_are_converted_once(trace: Path) -> None:
    write(trace, "time_s,load\n0,1.5\n60,2\n")
    assert list(read(trace, unit="kW").values) == [1500.0, 2000.0]


def test_comments_blank_lines_spaces_and_a_byte_order_mark_are_fine(trace: Path) -> None:
    write(trace, "\ufeff# generated\ntime_s, load\n\n0, 1\n# noon\n60, 2\n")
    assert list(read(trace).values) == [1.0, 2.0]


def test_a_column_is_chosen_by_name(trace: Path) -> None:
    write(trace, "time_s,a,b\n0,1,2\n60,3,4\n")
    assert list(read(trace, column="b").values) == [2.0, 4.0]


def test_the_column_of_stamps_may_have_another_name(trace: Path) -> None:
    write(trace, "period_s,load\n0,1\n60,3\n")
    assert list(read(trace, time_column="period_s").values) == [1.0, 3.0]


def test_a_load_below_zero_is_taken_as_read(trace: Path) -> None:
    write(trace, "time_s,load\n0,-0.01\n60,3\n")
    assert read(trace).values[0] == -0.01


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time_s,load\n0,1\n60,nan\n", [":3: column load: nan: expected a number"]),
        ("time_s,load\n0,1\n60,\n", [":3: column load: empty: expected a number"]),
        ("time_s,load\n0,inf\n60,1_0\n", [":2: column load: inf", ":3: column load: 1_0"]),
        ("time_s,load\nx,1\n", [":2: column time_s: x: expected a number"]),
        ("time_s,load\n60,1\n60,2\n", [":3: column time_s: 60: the same instant as the row before"]),
        ("time_s,load\n60,1\n0,2\n", [":3: column time_s: 0: earlier than the row before"]),
        ("time,load\n2026-04-15T00:00:00,1\n", [":2: column time: 2026-04-15T00:00:00: has no zone"]),
        ("time,load\n15.04.2026 00:00,1\n", [":2: column time: 15.04.2026 00:00: expected an instant"]),
        ("time,load\n9999-12-31T00:00Z,1\n", [":2: column time: 9999-12-31T00:00Z: expected a year from 1970"]),
        ("time_s,load\n5e9,1e13\n", [":2: column time_s: 5e9: expected", ":2: column load: 1e13: expected a number"]),
        ("when,load\n0,1\n", [":1: column time: no such column: the file has when, load"]),
        ("time_s,a,b\n0,1,2\n", [":1: column not given: a, b: expected `column:`"]),
        ("time_s,load\n0,1,2\n60\n", [":2: column time_s: 3 cells: expected 2", ":3: column time_s: 1 cells"]),
        ("time_s;load\n0;1\n", [": file: columns time_s;load: expected a stamp and at least one value"]),
        ("time_s,load,load\n0,1,2\n", [": file: columns time_s, load, load: expected a stamp"]),
        ("time_s,load\n", [": file: no rows"]),
        ("", [": file: no rows"]),
    ],
)
def test_faults_name_file_row_and_column(trace: Path, text: str, expected: list[str]) -> None:
    found = faults(write(trace, text))
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(
                    ["time", "time_s", "load", "0", "60", "-1", "1e999", "1e300", "nan", "#", '"', ";", "\x00"]
                ),
                st.sampled_from(["2026-04-15T00:00Z", "2026-04-15", "9999-12-31T23:59:59Z", "0001-01-01T00:00+23:59"]),
                st.text(max_size=5),
            ),
            max_size=3,
        ),
        max_size=6,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_read_or_refused(trace: Path, rows: list[list[str]]) -> None:
    trace.write_bytes("\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass"))
    try:
        series = read(trace)
    except ConfigError:
        return
    assert all(math.isfinite(value) for value in series.values)
    assert list(series.times_us) == sorted(set(series.times_us))


def test_a_column_that_is_not_there(trace: Path) -> None:
    write(trace, "time_s,solar_w\n0,1\n")
    assert faults(trace, column="wind_w") == [":1: column wind_w: no such column: the file has time_s, solar_w"]


def test_a_thousand_faults_are_counted_not_listed(trace: Path) -> None:
    write(trace, "time_s,load\n" + "".join(f"{t},nan\n" for t in range(1000)))
    found = faults(trace)
    assert len(found) == 6
    assert found[-1] == ": file: 995 more faults: mend the ones above first"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.csv") == [": file: unreadable: No such file or directory"]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert faults(binary) == [": file: not text: expected a CSV file in UTF-8"]
