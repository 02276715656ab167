from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from hil.bus import Inbound
from hil.demo.scene import Scene
from hil.devices import Quality
from hil.wire import CoordinatorState, Last, LimitState, Message, MicrogridState, Topics

TOPICS = Topics("lab")
NODE = TOPICS.node("jetson-1")


@pytest.fixture
def scene() -> Scene:
    return Scene(TOPICS)


def test_a_step_becomes_the_newest_and_a_point(
    scene: Scene, says: Callable[[str, Message], Inbound], step: Callable[..., MicrogridState]
) -> None:
    for k in (0, 1):
        scene.take(says(TOPICS.microgrid("shed"), step(k, soc=0.5 + k / 10)))
    shed = scene.microgrids["shed"]
    assert shed.newest is not None
    assert shed.newest.step == 1
    assert [(point.soc, point.load_w, point.sun_w, point.grid_w) for point in shed.points] == [
        (0.5, 15.0, 10.0, -3.0),
        (0.6, 15.0, 10.0, -3.0),
    ]


def test_nodes_show_their_newest_reading_and_limit(scene: Scene, says: Callable[[str, Message], Inbound]) -> None:
    scene.take(says(NODE.last("outlet"), Last(t_us=1, power_w=None, quality=Quality.MISSING)))
    scene.take(says(NODE.last("outlet"), Last(t_us=2, power_w=7.4, quality=Quality.GOOD)))
    limit = LimitState(
        actuator="board",
        desired_w=7.5,
        effective_w=7.5,
        source="lab",
        state="controlled",
        valid_until=datetime(2026, 6, 21, tzinfo=UTC),
    )
    scene.take(says(NODE.limit, limit))
    node = scene.nodes["jetson-1"]
    assert (node.power_w, node.quality, node.limit) == (7.4, Quality.GOOD, limit)


@pytest.mark.parametrize("draining", [False, True])
def test_it_is_over_once_a_coordinator_that_was_there_decides_no_more(
    draining: bool, scene: Scene, says: Callable[[str, Message], Inbound]
) -> None:
    def hear(online: bool, **more: bool) -> None:
        state = CoordinatorState(online=online, instance="a", epoch=1, **more)
        scene.take(says(TOPICS.coordinator_state, state))

    hear(online=False)  # an earlier one's last word, retained
    assert not scene.done
    hear(online=True)
    assert not scene.done
    hear(online=False, draining=draining)
    assert scene.done


def test_what_it_cannot_read_it_tells_and_goes_on(scene: Scene) -> None:
    for topic in (TOPICS.microgrid("shed"), NODE.limit, TOPICS.coordinator_state):
        scene.take(Inbound(topic, b"{", retained=False, arrived=0.0))
    assert len(scene.events) == 3
    assert all(event.startswith("unreadable message on wattloop/v1/lab/") for event in scene.events)
    assert (scene.microgrids, scene.started) == ({}, False)


def test_it_hears_what_it_asks_for(scene: Scene) -> None:
    assert scene.filters == [
        "wattloop/v1/lab/microgrid/+/state",
        "wattloop/v1/lab/node/+/last/+",
        "wattloop/v1/lab/node/+/limit",
        "wattloop/v1/lab/coordinator/state",
    ]
