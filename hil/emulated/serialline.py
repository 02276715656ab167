"""Emulated units on a serial line: a pseudo-terminal as slow as a real line, and as easily set wrong.

The line has a speed. A master that opens the terminal with another is not understood, and is answered by nobody
(pseudo-terminals know no parity). Bytes take their time: an answer is there when the request, the unit's turnaround and
the answer itself would have passed over the wire. Who asks while an answer is under way gets that answer for its own,
if it lets itself be deceived.
"""

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pymodbus.framer.rtu import FramerRTU

from hil.clock import Clock
from hil.emulated.listen import LinkError
from hil.emulated.modbusunit import ILLEGAL_FUNCTION, EmulatedUnit, Fault, Refusal

REQUEST_BYTES: Final = 8
FUNCTIONS: Final = (3, 4)
EXCEPTION: Final = 0x80
PAUSE_CHARS: Final = 3.5
PAUSE_AT_LEAST_S: Final = 0.005
"""A frame is over when nothing has come for so long; a pseudo-terminal's other side is a busy process."""

_SPEEDS: Final = {
    getattr(termios, name): int(name[1:]) for name in dir(termios) if name[1:].isdigit() and name[0] == "B"
}


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How a line is set, and how soon its units answer; ``echo``: the adapter hears itself."""

    baudrate: int = 9600
    stopbits: int = 1
    turnaround_s: float = 0.005
    echo: bool = False

    @property
    def char_s(self) -> float:
        """Seconds that a character takes."""
        return (1 + 8 + self.stopbits) / self.baudrate


class SerialLine:
    """A pseudo-terminal reached by the symbolic link ``link``, and the units on it by their unit ids."""

    def __init__(
        self,
        link: Path,
        settings: LineSettings,
        units: Mapping[int, EmulatedUnit],
        refresh: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.link = link
        self._settings = settings
        self._units = dict(units)
        self._refresh = refresh
        self._clock = clock
        self._master = self._slave = -1
        self._heard = b""
        self._pause: asyncio.TimerHandle | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the terminal and the link to it. Raises LinkError."""
        self._master, self._slave = os.openpty()  # our own end of the slave keeps it alive from one master to the next
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        try:
            self._point(os.ttyname(self._slave))
        except OSError as error:
            await self.stop()
            raise LinkError(self._names(), self.link, error) from error
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    async def stop(self) -> None:
        """Take link and terminal away; harmless when repeated."""
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        for answer in self._answers:
            answer.cancel()
        if self._pause is not None:
            self._pause.cancel()
        with contextlib.suppress(OSError):
            if self.link.is_symlink() and self.link.readlink() == Path(os.ttyname(self._slave)):
                self.link.unlink()
        for descriptor in (self._master, self._slave):
            os.close(descriptor)
        self._master = self._slave = -1

    def _point(self, terminal: str) -> None:
        self.link.parent.mkdir(parents=True, exist_ok=True)
        if self.link.is_symlink():  # of an emulation that was killed
            self.link.unlink()
        self.link.symlink_to(terminal)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._heard += os.read(self._master, 1024)
        if self._pause is not None:
            self._pause.cancel()
        if _sound(self._heard) and len(self._heard) == REQUEST_BYTES:
            self._end_of_frame()
        else:
            pause_s = max(PAUSE_CHARS * self._settings.char_s, PAUSE_AT_LEAST_S)
            self._pause = asyncio.get_running_loop().call_later(pause_s, self._end_of_frame)

    def _end_of_frame(self) -> None:
        frame, self._heard = self._heard, b""
        if self._settings.echo:
            os.write(self._master, frame)
        unit = self._units.get(frame[0]) if frame else None
        if unit is None or unit.fault is Fault.SILENT or not _sound(frame) or not self._set_right():
            return
        answer = asyncio.create_task(self._answer(unit, frame), name=f"answer of {unit.name}")
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

    async def _answer(self, unit: EmulatedUnit, frame: bytes) -> None:
        began = self._clock.monotonic()
        content = self._content(unit, frame)
        wire_s = (len(frame) + len(content) + 2) * self._settings.char_s
        await self._clock.sleep_until(began + wire_s + self._settings.turnaround_s + unit.delay_s)
        checksum = FramerRTU.compute_CRC(content) ^ (unit.fault is Fault.DAMAGED)
        with contextlib.suppress(BlockingIOError):  # nobody has read for long: the line forgets
            os.write(self._master, content + checksum.to_bytes(2, "big"))

    def _content(self, unit: EmulatedUnit, frame: bytes) -> bytes:
        number, function = frame[:2]
        if function not in FUNCTIONS or len(frame) != REQUEST_BYTES:
            return bytes((number, function | EXCEPTION, ILLEGAL_FUNCTION))
        self._refresh()
        try:
            words = unit.answer(function, int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big"))
        except Refusal as refusal:
            return bytes((number, function | EXCEPTION, refusal.code))
        return bytes((number, function, 2 * len(words))) + b"".join(word.to_bytes(2, "big") for word in words)

    def _set_right(self) -> bool:
        """Whether the master has the line's speed; otherwise it talks gibberish."""
        speed = termios.tcgetattr(self._slave)[5]
        return _SPEEDS.get(speed) == self._settings.baudrate

    def _names(self) -> str:
        return ", ".join(unit.name for unit in self._units.values())


def _sound(frame: bytes) -> bool:
    return len(frame) >= 4 and FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))
