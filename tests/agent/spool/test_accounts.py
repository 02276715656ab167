from pathlib import Path

import pytest

from agent.spool.accounts import Account, AccountFile, Books, StreamAccount

ACCOUNT = Account([StreamAccount(1, "aa", 5, 5), StreamAccount(2, "bb", 90, 70)], 93, 70, 3)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = AccountFile(tmp_path / "account")
    file.write(ACCOUNT)
    assert AccountFile(tmp_path / "account").read() == ACCOUNT


def test_a_shorter_account_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    file = AccountFile(tmp_path / "account")
    file.write(ACCOUNT)
    shorter = Account(ACCOUNT.streams[:1], 4, 4, 0)
    file.write(shorter)
    file.close()
    assert file.read() == shorter


def test_without_a_file_there_is_no_account(tmp_path: Path) -> None:
    assert AccountFile(tmp_path / "account").read() is None


@pytest.mark.parametrize("damage", range(0, 80, 3))
def test_a_damaged_account_is_none(tmp_path: Path, damage: int) -> None:
    path = tmp_path / "account"
    file = AccountFile(path)
    file.write(ACCOUNT)
    content = bytearray(path.read_bytes())
    content[damage] ^= 0x10
    path.write_bytes(content)
    assert file.read() is None


@pytest.mark.parametrize("size", [0, 1, 8, 9, 40])
def test_a_cut_account_is_none(tmp_path: Path, size: int) -> None:
    path = tmp_path / "account"
    file = AccountFile(path)
    file.write(ACCOUNT)
    path.write_bytes(path.read_bytes()[:size])
    assert file.read() is None


def test_books_balance_when_every_sample_is_accounted_for() -> None:
    assert Books(10, 5, 3, 2).balanced
    assert not Books(10, 5, 3, 1).balanced
    assert Books(1, 1, 0, 0) + Books(2, 0, 1, 1) == Books(3, 1, 1, 1)
