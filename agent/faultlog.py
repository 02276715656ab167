"""A lasting fault in the log: said once, and counted until it is over."""

import logging


class FaultLog:
    """Logs the first of a row of equal faults, each new reason, and the count when it works again."""

    REASONS = 5  # a device that fails in ever new words must not fill the log

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        self._logger = logger
        self._subject = subject
        self._reasons: set[str] = set()
        self.count = 0

    def fault(self, reason: str, error: BaseException | None = None) -> None:
        """It failed (again); ``error`` where a traceback helps whoever wrote the code."""
        self.count += 1
        if reason not in self._reasons and len(self._reasons) < self.REASONS:
            self._reasons.add(reason)
            self._logger.warning("%s: %s", self._subject, reason, exc_info=error)

    def clear(self) -> None:
        """It works."""
        if self.count:
            self._logger.info("%s: works again, after %d failures", self._subject, self.count)
            self.count = 0
            self._reasons.clear()
