import io
import logging
import re
from collections.abc import Iterator

import pytest

from hil.logs import configure


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_journald_gets_priorities_and_no_time() -> None:
    stream = io.StringIO()
    configure("debug", stream=stream, environment={"JOURNAL_STREAM": "8:1"})
    log = logging.getLogger("test")
    log.debug("a")
    log.info("b")
    log.warning("c\nd")
    log.error("e")
    assert stream.getvalue().splitlines() == ["<7>a", "<6>b", "<4>c", "<4>d", "<3>e"]


def test_people_get_time_and_level_from_the_level_asked_for() -> None:
    stream = io.StringIO()
    configure("warning", stream=stream, environment={})
    logging.getLogger("test").info("unseen")
    logging.getLogger("test").warning("seen")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} WARNING seen\n", stream.getvalue())
