"""The power cap of an emulated node (``wattloop-hil emulate``), over the emulation's control socket.

Configuration of an agent::

    actuators:
      - name: board
        kind: emulated
        node: jetson-1
        host: 127.0.0.1
        port: 5021
        min_w: 5
        max_w: 20

The node takes any cap from 0 W; ``min_w`` and ``max_w`` are the bounds that this agent keeps to.
"""

from typing import Annotated

import msgspec

from agent.actuators.base import ActuatorConfig
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting
from hil.emulated.client import ControlClient, ControlRefused, ControlUnavailable
from hil.emulated.messages import Get, NodeState, SetCap
from hil.wire import Name

Power = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class EmulatedActuatorConfig(ActuatorConfig, frozen=True, kw_only=True, tag_field="kind", tag="emulated"):
    """Which emulated node, where its control socket is, and the limits in W that may be set."""

    node: Name
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    min_w: Power
    max_w: Power
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=10)] = 1.0

    def __post_init__(self) -> None:
        if self.min_w >= self.max_w:
            raise ValueError(f"expected min_w below max_w, not {self.min_w:g} and {self.max_w:g}")


class _Snapshot(msgspec.Struct, frozen=True):
    cap_w: float | None


class EmulatedActuator:
    """Caps an emulated node's power, in W."""

    def __init__(self, config: EmulatedActuatorConfig) -> None:
        self._config = config
        self._client = ControlClient(config.host, config.port, config.timeout_s)

    @property
    def name(self) -> str:
        """The actuator's name in the agent's configuration."""
        return self._config.name

    @property
    def kind(self) -> str:
        """The kind by which the configuration chose it."""
        return str(self._config.__struct_config__.tag)

    async def open(self) -> Capabilities:
        """The configured bounds, once the node has answered. Raises DeviceUnavailable; DeviceFailed without it."""
        await self._state()
        return Capabilities(min_w=self._config.min_w, max_w=self._config.max_w)

    async def snapshot(self) -> str:
        """The present cap, as JSON."""
        return msgspec.json.encode(_Snapshot((await self._state()).cap_w)).decode()

    async def apply(self, setting: Setting) -> None:
        """Set the cap, or lift it. Raises DeviceUnavailable; DeviceFailed for what lies outside the capabilities."""
        limit_w = setting.limit_w
        if setting.profile is not None:
            raise DeviceFailed(self.name, f"has no profiles, so none called {setting.profile}")
        if limit_w is not None and not self._config.min_w <= limit_w <= self._config.max_w:
            bounds = f"{self._config.min_w:g} to {self._config.max_w:g} W"
            raise DeviceFailed(self.name, f"{limit_w:g} W is outside {bounds}")
        await self._ask(SetCap(node=self._config.node, cap_w=limit_w))

    async def readback(self) -> Setting:
        """The cap that the node says it has."""
        return Setting(limit_w=(await self._state()).cap_w)

    async def restore(self, snapshot: str) -> None:
        """Put the cap of a snapshot back. Raises DeviceFailed if the text is none."""
        try:
            found = msgspec.json.decode(snapshot, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceFailed(self.name, f"not a snapshot: {error}") from error
        await self._ask(SetCap(node=self._config.node, cap_w=found.cap_w))

    async def close(self) -> None:
        """Close the connection; the cap stays."""
        await self._client.close()

    async def _state(self) -> NodeState:
        return await self._ask(Get(node=self._config.node))

    async def _ask(self, request: Get | SetCap) -> NodeState:
        try:
            answer = await self._client.request(request)
        except ControlUnavailable as error:
            raise DeviceUnavailable(self.name, str(error)) from error
        except ControlRefused as error:
            raise DeviceFailed(self.name, str(error)) from error
        if answer.node is None:
            raise DeviceFailed(self.name, "an answer without the node's state")
        return answer.node
