"""When to try again something that keeps failing."""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays that double with each failure, from ``first_s`` to ``longest_s``; the first ``free`` ones cost none."""

    first_s: float
    longest_s: float
    free: int = 0
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""

    def failed(self, now: float, reason: str) -> None:
        """Note a failure at ``now``, in monotonic seconds, and why."""
        self.failures += 1
        self.reason = reason
        doublings = min(self.failures - self.free - 1, 30)
        self.not_before = now + (min(self.first_s * 2.0**doublings, self.longest_s) if doublings >= 0 else 0.0)

    def worked(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.not_before = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the next try; 0: now."""
        return max(0.0, self.not_before - now)
