import logging

import pytest

from agent.faultlog import FaultLog


def test_a_lasting_fault_is_said_once_and_counted_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    faults = FaultLog(logging.getLogger("test"), "meter a")
    for _ in range(1000):
        faults.fault("silent")
    faults.clear()
    faults.clear()
    assert caplog.messages == ["meter a: silent", "meter a: works again, after 1000 failures"]


def test_each_new_reason_is_said_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    faults = FaultLog(logging.getLogger("test"), "meter a")
    for number in range(100):
        faults.fault(f"reason {number}")
    assert len(caplog.messages) == FaultLog.REASONS


def test_the_next_fault_after_recovery_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    faults = FaultLog(logging.getLogger("test"), "meter a")
    faults.fault("silent")
    faults.clear()
    faults.fault("silent")
    assert caplog.messages.count("meter a: silent") == 2
