"""A hold on one device: sets it, checks that it took, notices when somebody else changes it, and knows the way back."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, TypeVar

from agent.faultlog import FaultLog
from agent.lease import UNLIMITED, show
from hil.devices import Actuator, Capabilities, DeviceError, DeviceUnavailable, Setting

TIMEOUT_S: Final = 5.0
FIGHTS: Final = 3
CALM_S: Final = 60.0
ROUNDING: Final = 0.01

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Grip:
    """One actuator and what we know of it.

    ``undo`` is the snapshot that leads back to the owner's setting, None while nothing was written. ``held`` is what
    the device confirmed last; UNLIMITED while it is the owner's, None when a write may or may not have got through.
    ``note`` is what the device last added for people.
    """

    def __init__(self, actuator: Actuator) -> None:
        self.capabilities: Capabilities | None = None
        self.undo: str | None = None
        self.held: Setting | None = UNLIMITED
        self.note = ""
        self._actuator = actuator
        self._faults = FaultLog(_log, actuator.name)
        self._fights = 0
        self._fought_at = 0.0

    @property
    def name(self) -> str:
        """The actuator's name."""
        return self._actuator.name

    @property
    def kind(self) -> str:
        """What drives it, for people."""
        return self._actuator.kind

    @property
    def faulty(self) -> bool:
        """Whether the device did not do what was last asked of it."""
        return self._faults.count > 0

    @property
    def contended(self) -> bool:
        """Whether something else keeps changing the setting."""
        return self._fights >= FIGHTS

    async def open(self) -> Capabilities:
        """Find the device. Raises DeviceError."""
        self.capabilities = await self._ask(self._actuator.open())
        return self.capabilities

    async def snapshot(self) -> str:
        """The owner's setting, to be stored before the first write. Raises DeviceError."""
        return await self._ask(self._actuator.snapshot())

    async def hold(self, wanted: Setting) -> Setting:
        """Set the device (UNLIMITED: restore it) and return what it says it is set to. Raises DeviceError."""
        return await self._ask(self._let_go() if wanted == UNLIMITED else self._hold(wanted))

    async def check(self, now: float) -> None:
        """Set the device again if it no longer shows what is held. Raises DeviceError."""
        if self.held is not None and self.held != UNLIMITED:
            await self._ask(self._check(self.held, now))

    async def close(self) -> None:
        """Let go of the device without changing its setting."""
        await self._actuator.close()

    async def _hold(self, wanted: Setting) -> Setting:
        if self.held == wanted:
            found = await self._read()
            if self._agrees(wanted, found):
                return found
        self._fights = 0
        return await self._set(wanted)

    async def _check(self, wanted: Setting, now: float) -> None:
        found = await self._read()
        if self._agrees(wanted, found):
            self._fights = 0 if now - self._fought_at > CALM_S else self._fights
            return
        self._fights += 1
        self._fought_at = now
        if self._fights <= FIGHTS:
            _log.warning("%s: is set to %s instead of %s, setting it again", self.name, show(found), show(wanted))
        await self._set(wanted)

    async def _set(self, wanted: Setting) -> Setting:
        self.held = None
        await self._actuator.apply(wanted)
        found = await self._read()
        if not self._agrees(wanted, found):
            raise DeviceUnavailable(self.name, f"was set to {show(wanted)}, but says {show(found)}")
        self.held = wanted
        return found

    async def _let_go(self) -> Setting:
        if self.undo is not None:
            self.held = None
            await self._actuator.restore(self.undo)
            self.undo = None
        self.held = UNLIMITED
        self._fights = 0
        try:
            return await self._read()
        except (DeviceError, OSError):  # it is restored, whatever it cannot say
            return UNLIMITED

    async def _read(self) -> Setting:
        found = await self._actuator.readback()
        self.note = found.note
        return found

    async def _ask(self, work: Awaitable[T]) -> T:
        """What ``work`` gives, within reason: whatever goes wrong is a DeviceError, said once and counted."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await work
        except DeviceError as error:
            self._faults.fault(error.what)
            raise
        except OSError as error:  # TimeoutError is one
            what = str(error) or f"no answer within {TIMEOUT_S:g} s"
            self._faults.fault(what)
            raise DeviceUnavailable(self.name, what) from error
        self._faults.clear()
        return answer

    def _agrees(self, wanted: Setting, found: Setting) -> bool:
        if wanted.profile is not None and wanted.profile != found.profile:
            return False
        if wanted.workload is not None and wanted.workload != found.workload:
            return False
        if wanted.limit_w is None:
            return True
        step_w = self.capabilities.step_w if self.capabilities is not None else 0.0
        allowed_w = max(step_w, ROUNDING * wanted.limit_w)
        return found.limit_w is not None and abs(found.limit_w - wanted.limit_w) <= allowed_w
