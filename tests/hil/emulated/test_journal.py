import threading
from pathlib import Path

import pytest

from hil.emulated.journal import Journal, JournalError, JournalRow, energy_between_j, read_journal

ROWS = [JournalRow(1_000_000, 15.0, 0.0, None), JournalRow(2_000_000, 7.5, 10.0, 7.5)]


def test_rows_come_back_as_written(tmp_path: Path):
    journal = Journal(tmp_path / "deep" / "er" / "n.csv")
    journal.open()
    for row in ROWS:
        journal.add(row)
    assert read_journal(journal.path) == []
    journal.flush()
    journal.flush()
    assert read_journal(journal.path) == ROWS
    assert journal.path.read_text().splitlines()[0] == "t_us,power_w,energy_j,cap_w"


def test_an_existing_journal_is_continued(tmp_path: Path):
    for _ in range(2):
        journal = Journal(tmp_path / "n.csv")
        journal.open()
        journal.add(ROWS[0])
        journal.flush()
    assert read_journal(tmp_path / "n.csv") == [ROWS[0], ROWS[0]]


def test_a_line_cut_short_is_left_out(tmp_path: Path):
    path = tmp_path / "n.csv"
    path.write_text("t_us,power_w,energy_j,cap_w\n1000000,15.0,0.0,\n2000000,7.")
    assert read_journal(path) == [ROWS[0]]


def test_flushing_from_two_threads_writes_each_row_once(tmp_path: Path):
    journal = Journal(tmp_path / "n.csv")
    journal.open()
    threads = [threading.Thread(target=journal.flush) for _ in range(8)]
    for index in range(2000):
        journal.add(JournalRow(index, 1.0, 1.0, None))
        if index % 250 == 0:
            threads[index // 250].start()
    for thread in threads:
        thread.join()
    journal.flush()
    assert [row.t_us for row in read_journal(journal.path)] == list(range(2000))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "n.csv").mkdir()
    with pytest.raises(JournalError, match=r"n\.csv: cannot write the journal: is a directory"):
        Journal(tmp_path / "n.csv").open()


def test_energy_between_two_instants():
    rows = [JournalRow(0, 0, 0.0, None), JournalRow(10, 0, 100.0, None), JournalRow(20, 0, 100.0, None)]
    assert energy_between_j(rows, 0, 20) == 100.0
    assert energy_between_j(rows, 5, 20) == 50.0
    assert energy_between_j(rows, 2, 3) == pytest.approx(10.0)


def test_energy_across_a_restart_counts_from_zero_again():
    rows = [JournalRow(0, 0, 50.0, None), JournalRow(10, 0, 100.0, None), JournalRow(20, 0, 7.0, None)]
    assert energy_between_j(rows, 0, 20) == 57.0


@pytest.mark.parametrize(("first_us", "last_us"), [(-1, 5), (5, 11)])
def test_energy_outside_the_journal_is_refused(first_us: int, last_us: int):
    with pytest.raises(ValueError, match="cover"):
        energy_between_j([JournalRow(0, 0, 0.0, None), JournalRow(10, 0, 1.0, None)], first_us, last_us)
