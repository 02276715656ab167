"""Fixtures that tests of all packages share."""

import os
from collections.abc import Iterator

import pytest

from hil.broker import EmbeddedBroker, find_mosquitto


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a broker that all tests of the session share: use topics and client ids of your own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The path of mosquitto; skips without one, and in CI fails, for there it must not go missing unseen."""
    path = find_mosquitto()
    if path is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("mosquitto is not installed")
    return path


@pytest.fixture(scope="session")
def mosquitto_url(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Like ``broker_url``, for tests that need mosquitto."""
    with EmbeddedBroker(tmp_path_factory.mktemp("mosquitto"), prefer="mosquitto") as broker:
        yield broker.url
