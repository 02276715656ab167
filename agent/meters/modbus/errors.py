"""Why a bus brought no words."""


class BusError(Exception):
    """A request that brought no words; says why."""


class Silent(BusError):
    """Nothing came in time: the unit may be dead, or the wire cut."""


class Refused(BusError):
    """The unit is there and answered with a Modbus exception."""
