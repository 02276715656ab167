"""A power limiter in memory: an actuator whose device can vanish, ignore what it is told, or be changed by others."""

import json

from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting


class Limiter:
    """Holds a setting. ``writes`` lists every setting written, a restore as the setting restored."""

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        self.setting = Setting()
        self.writes: list[Setting] = []
        self.silent = False
        self.broken = False
        self.deaf = False
        self.closed = False
        self._name = name
        self._capabilities = capabilities

    @property
    def name(self) -> str:
        """The limiter's name."""
        return self._name

    @property
    def kind(self) -> str:
        """What it is."""
        return "limiter"

    async def open(self) -> Capabilities:
        """What it was made to be able to do. Raises DeviceFailed when broken, DeviceUnavailable when silent."""
        if self.broken:
            raise DeviceFailed(self.name, "broken")
        self._answer()
        return self._capabilities

    async def snapshot(self) -> str:
        """The present setting as JSON."""
        self._answer()
        return json.dumps([self.setting.limit_w, self.setting.profile])

    async def apply(self, setting: Setting) -> None:
        """Take the setting; a deaf device does nothing, and ``readback`` shows it."""
        self._answer()
        self._write(setting)

    async def readback(self) -> Setting:
        """The present setting."""
        self._answer()
        return self.setting

    async def restore(self, snapshot: str) -> None:
        """Put back what ``snapshot`` found."""
        self._answer()
        limit_w, profile = json.loads(snapshot)
        self._write(Setting(limit_w, profile))

    async def close(self) -> None:
        """Note that nobody holds it any more."""
        self.closed = True

    def _answer(self) -> None:
        if self.silent:
            raise DeviceUnavailable(self.name, "silent")

    def _write(self, setting: Setting) -> None:
        if not self.deaf:
            self.setting = setting
        self.writes.append(setting)
