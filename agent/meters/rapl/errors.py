"""Why there is no reading."""


class NotReadable(Exception):
    """Not now: a file is missing, closed to us, or holds garbage. It may be there, open and sound again later."""


class NoZones(NotReadable):
    """There is no powercap tree, or nothing in it that counts energy."""


class Unfit(Exception):
    """Not ever, as configured: this machine has no such zones, or they cannot be read in this way."""
