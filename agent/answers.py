"""The agent's word on each command: given once, remembered, and repeated until the broker surely has it.

The newest answer to a command is the one that counts; it is sent again after a lost connection unless it had been out
for ``SETTLED_S`` by then, so that a message in flight when the line broke is not lost. Repeats are identical, and the
id makes them harmless.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent.faultlog import FaultLog
from agent.leasestore import ANSWERS_KEPT, Answered, Change, LeaseStore, StoreFailed
from hil.clock import Clock
from hil.wire import TERMINAL, Ack, AckState, Command

SETTLED_S: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sending:
    ack: Ack
    published_at: float | None = None


class Answers:
    """The last answers by command id; refused commands are kept apart, so that a flood of them displaces nothing."""

    def __init__(self, store: LeaseStore, clock: Clock, boot_id: str, publish: Callable[[Ack], bool]) -> None:
        self._store = store
        self._clock = clock
        self._boot_id = boot_id
        self._publish = publish
        self._obeyed: dict[str, Ack] = {}
        self._refused: dict[str, Ack] = {}
        self._expected: set[str] = set()
        self._sending: dict[str, _Sending] = {}
        self._unsaved: dict[str, Answered] = {}
        self._saving: asyncio.Task[None] | None = None
        self._faults = FaultLog(_log, "answers are not stored")

    def load(self, answers: Iterable[Answered]) -> None:
        """Take over what an earlier life answered; what may not have been heard will be sent again."""
        for answered in answers:
            (self._refused if answered.refused else self._obeyed)[answered.ack.id] = answered.ack
            if not answered.settled:
                self._sending[answered.ack.id] = _Sending(answered.ack)

    def get(self, command_id: str) -> Ack | None:
        """The newest answer to a command; None if there is none (yet)."""
        return self._obeyed.get(command_id) or self._refused.get(command_id)

    def expect(self, command_id: str) -> None:
        """Note a command that waits its turn."""
        self._expected.add(command_id)

    def expects(self, command_id: str) -> bool:
        """Whether the command waits its turn, so that an answer will come."""
        return command_id in self._expected

    def compose(self, command: Command, received_us: int, **changes: Any) -> Ack:
        """The command's newest answer (at first: ``received``) with ``changes`` and a fresh stamp; nothing is sent."""
        newest = self.get(command.id) or Ack(
            id=command.id,
            issuer=command.issuer,
            epoch=command.epoch,
            seq=command.seq,
            actuator=command.target.actuator,
            state=AckState.RECEIVED,
            requested_w=command.limit_w,
            t_received_us=received_us,
            boot_id=self._boot_id,
        )
        return msgspec.structs.replace(newest, t_us=self._clock.wall_us(), **changes)

    @property
    def unfinished(self) -> list[Ack]:
        """The newest answers that are not terminal, oldest first."""
        return [ack for ack in self._obeyed.values() if ack.state not in TERMINAL]

    def say(self, ack: Ack, *, saved: bool = False) -> None:
        """Publish an answer that is not terminal; it is stored in the background unless it has been."""
        self._remember(ack, self._obeyed)
        self._send(ack)
        if not saved:
            self._save_later(Answered(ack, refused=False))

    def refuse(self, ack: Ack) -> None:
        """Answer a command that is not acted upon; published once stored, in the background."""
        self._remember(ack, self._refused)
        self._save_later(Answered(ack, refused=True))

    async def conclude(self, acks: Iterable[Ack], *, forget: str | None = None) -> None:
        """Store terminal answers, and that an actuator is restored, with one fsync; then publish them."""
        answers = tuple(Answered(ack, refused=False) for ack in acks)
        for answered in answers:
            self._remember(answered.ack, self._obeyed)
            self._unsaved.pop(answered.ack.id, None)
        await self._save(Change(answers=answers, forget=forget))
        for answered in answers:
            self._send(answered.ack)

    def repeat(self, ack: Ack) -> None:
        """Publish an answer again because its command came again."""
        if ack.id not in self._unsaved:
            self._send(ack)

    def connection(self, up: bool) -> None:
        """Send again what may have been lost with the connection."""
        if up:
            self._catch_up()
            return
        for sending in self._sending.values():
            sending.published_at = None

    async def tick(self) -> None:
        """Once a second: send what could not be handed over, and settle what has long been out."""
        self._catch_up()
        latest = self._clock.monotonic() - SETTLED_S
        done = [
            name for name, out in self._sending.items() if out.published_at is not None and out.published_at < latest
        ]
        terminal = tuple(name for name in done if self._sending.pop(name).ack.state in TERMINAL)
        if terminal:
            await self._save(Change(settled=terminal, durable=False))

    async def flush(self) -> None:
        """Return once everything said so far is stored and handed to the bus."""
        while self._saving is not None and not self._saving.done():
            await asyncio.shield(self._saving)

    def _remember(self, ack: Ack, kept: dict[str, Ack]) -> None:
        self._expected.discard(ack.id)
        kept[ack.id] = ack
        if len(kept) > ANSWERS_KEPT:
            oldest = next((old.id for old in kept.values() if old.state in TERMINAL), None)
            if oldest is not None:
                del kept[oldest]
                self._sending.pop(oldest, None)

    def _send(self, ack: Ack) -> None:
        sending = self._sending[ack.id] = _Sending(ack)
        self._try(sending)

    def _try(self, sending: _Sending) -> None:
        if self._publish(sending.ack):
            sending.published_at = self._clock.monotonic()

    def _catch_up(self) -> None:
        for sending in self._sending.values():
            if sending.published_at is None:
                self._try(sending)

    def _save_later(self, answered: Answered) -> None:
        self._unsaved[answered.ack.id] = answered
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save_all(), name="save answers")

    async def _save_all(self) -> None:
        while self._unsaved:
            batch = tuple(self._unsaved.values())
            self._unsaved.clear()
            await self._save(Change(answers=batch, durable=False))
            for answered in batch:
                if answered.refused:
                    self._send(answered.ack)

    async def _save(self, change: Change) -> None:
        try:
            await self._store.write(change)
        except StoreFailed as error:
            # The answer still goes out, and a restore was done: only a crash from here on can repeat either.
            self._faults.fault(str(error))
        else:
            self._faults.clear()
