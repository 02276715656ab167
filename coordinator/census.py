"""Who is there: the agents that a broker hears, from their retained births and states."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.presence import Echo
from hil.bus import Inbound
from hil.clock import Clock
from hil.mqtt import BrokerConfig, MqttBus
from hil.wire import Birth, NodeState, Topics, WireError, decode


class CensusError(Exception):
    """The broker could not be asked."""


@dataclass(slots=True)
class Heard:
    """An agent as the broker knows it; None for what was not retained."""

    name: str
    birth: Birth | None = None
    state: NodeState | None = None


async def census(broker: BrokerConfig, site: str, clock: Clock, timeout_s: float) -> list[Heard]:
    """The agents of a site, by name. Raises CensusError when the broker does not answer in time."""
    topics = Topics(site)
    instance = secrets.token_hex(4)
    bus = MqttBus(broker, f"census-{instance}", clock)
    echo = Echo(topics, instance, bus)
    agents: dict[str, Heard] = {}
    for topic_filter in (topics.node("+").birth, topics.node("+").state, echo.topic):
        bus.subscribe(topic_filter)
    await bus.start()
    try:
        async with asyncio.timeout(timeout_s):
            await bus.wait_connected()
            echo.call()
            while not echo.back:
                for message in await bus.receive():
                    echo.take(message.topic)
                    _note(agents, topics, message)
    except TimeoutError as error:
        raise CensusError(f"no answer from {bus.description} within {timeout_s:g} s") from error
    finally:
        await bus.stop()
    return [agents[name] for name in sorted(agents)]


def births(agents: Sequence[Heard]) -> list[Birth]:
    """The births among them."""
    return [agent.birth for agent in agents if agent.birth is not None]


def _note(agents: dict[str, Heard], topics: Topics, message: Inbound) -> None:
    route = topics.node_of(message.topic)
    if route is None or not message.payload:
        return
    agent = agents.setdefault(route[0], Heard(route[0]))
    try:
        if route[1] == "birth":
            agent.birth = decode(message.payload, Birth)
        elif route[1] == "state":
            agent.state = decode(message.payload, NodeState)
    except WireError:
        return  # shown as an agent without a readable birth
