"""Why a bus brought no words."""

from typing import Final

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
NO_PATH: Final = 10
NO_ANSWER: Final = 11

EXCEPTIONS: Final = {
    ILLEGAL_FUNCTION: "illegal function",
    ILLEGAL_ADDRESS: "illegal address",
    ILLEGAL_VALUE: "illegal value",
    4: "device failure",
    5: "acknowledged, still at it",
    6: "device busy",
    8: "memory parity error",
    NO_PATH: "gateway path unavailable",
    NO_ANSWER: "no answer behind the gateway",
}
"""Modbus Application Protocol V1.1b3, 7."""


class BusError(Exception):
    """A request that brought no words; says why."""


class Silent(BusError):
    """Nothing that could be understood came in time: the unit may be dead, the wire cut, the line set wrongly."""


class WrongDevice(BusError):
    """The unit is there, but is not what its profile describes."""


class Refused(BusError):
    """The unit, or a gateway in its place, answered with the Modbus exception ``code``."""

    def __init__(self, code: int, asked: str) -> None:
        super().__init__(f"exception {code} ({EXCEPTIONS.get(code, 'unknown')}) on reading {asked}")
        self.code = code

    @property
    def unreachable(self) -> bool:
        """Whether it was a gateway that answered, after waiting in vain for the unit."""
        return self.code in {NO_PATH, NO_ANSWER}

    @property
    def misplaced(self) -> bool:
        """Whether the unit does not have all the words that it was asked for in one."""
        return self.code in {ILLEGAL_ADDRESS, ILLEGAL_VALUE}
