"""The actuator over one program."""

import os
from typing import Final

import msgspec

from agent.actuators.workload.config import WorkloadConfig
from agent.actuators.workload.program import Program, ProgramFailed
from hil.clock import Clock
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting, WorkloadState

SETTLE_S: Final = 1.0
LOOK_AGAIN_S: Final = 0.01


class _Snapshot(msgspec.Struct, frozen=True):
    workload: WorkloadState


class WorkloadActuator:
    """Makes one program run, pause or stop."""

    def __init__(self, config: WorkloadConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._program = Program(config, clock)

    @property
    def name(self) -> str:
        """The actuator's name in the agent's configuration."""
        return self._config.name

    @property
    def kind(self) -> str:
        """The kind by which the configuration chose it."""
        return str(self._config.__struct_config__.tag)

    async def open(self) -> Capabilities:
        """That there is a workload, once the program can be executed. Raises DeviceFailed."""
        program = self._config.argv[0]
        if not os.access(program, os.X_OK):
            raise DeviceFailed(self.name, f"{program} cannot be executed by this user")
        return Capabilities(workload=True)

    async def snapshot(self) -> str:
        """What the program does, as JSON."""
        return msgspec.json.encode(_Snapshot(await self._program.state())).decode()

    async def apply(self, setting: Setting) -> None:
        """Make the program do what the setting says, nothing: let it be. Raises DeviceUnavailable, DeviceFailed."""
        if setting.limit_w is not None or setting.profile is not None:
            raise DeviceFailed(self.name, "takes no limit and no profile")
        if setting.workload is not None:
            await self._make(setting.workload)
        elif await self._program.state() is WorkloadState.PAUSED:
            await self._make(WorkloadState.RUNNING)

    async def readback(self) -> Setting:
        """What the program does, and its story."""
        return Setting(workload=await self._program.state(), note=self._program.story)

    async def restore(self, snapshot: str) -> None:
        """Make the program do what it did. Raises DeviceFailed if the text is no snapshot."""
        try:
            found = msgspec.json.decode(snapshot, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceFailed(self.name, f"not a snapshot: {error}") from error
        await self._make(found.workload)

    async def close(self) -> None:
        """End the program: it lives no longer than its actuator."""
        await self._program.stop()

    async def _make(self, state: WorkloadState) -> None:
        match state:
            case WorkloadState.STOPPED:
                await self._program.stop()
            case WorkloadState.PAUSED:
                await self._program.pause()
            case WorkloadState.RUNNING:
                try:
                    await self._program.run()
                except ProgramFailed as error:
                    raise DeviceUnavailable(self.name, str(error)) from error
        await self._settle(state)

    async def _settle(self, state: WorkloadState) -> None:
        """Wait a little: a process that is told to pause does so at its next turn."""
        deadline = self._clock.monotonic() + SETTLE_S
        while await self._program.state() is not state and self._clock.monotonic() < deadline:
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_AGAIN_S)
