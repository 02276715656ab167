import io
from collections.abc import Callable

import pytest
from rich.console import Console

from hil.bus import Inbound
from hil.demo.scene import Scene
from hil.demo.views import LiveView, PlainView
from hil.devices import Quality
from hil.wire import Last, Message, MicrogridState, Topics

TOPICS = Topics("lab")


@pytest.fixture
def scene(says: Callable[[str, Message], Inbound], step: Callable[..., MicrogridState]) -> Scene:
    """A run after its eleventh step."""
    made = Scene(TOPICS)
    for k in range(11):
        made.take(says(TOPICS.microgrid("shed"), step(k)))
    made.take(says(TOPICS.node("jetson-1").last("outlet"), Last(t_us=1, power_w=15.02, quality=Quality.ESTIMATED)))
    return made


def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_plain_view_writes_a_line_now_and_then(scene: Scene) -> None:
    out = console()
    view = PlainView(out)
    view.phase("broker: here")
    view.refresh(Scene(TOPICS), None)  # nothing to show yet
    for left_s in (9.0, 8.8, 8.6):
        view.refresh(scene, left_s)
    view.event("Sun 12:10 shed  limit: jetson-1 to 7.5 W [not markup]")
    view.close()
    assert shown(out).splitlines() == [
        "broker: here",
        "Sun 12:10  jetson-1 -15.0 W  panel +10.0 W  battery +2.0 W, 50.0%  grid -3.0 W  80 g/kWh, 9 s left",
        "  Sun 12:10 shed  limit: jetson-1 to 7.5 W [not markup]",
    ]


def test_what_is_not_served_is_said_loudly(
    scene: Scene, says: Callable[[str, Message], Inbound], step: Callable[..., MicrogridState]
) -> None:
    out = console()
    dark = step(11, p_unserved_w=5.0, islanded=True, soc=None, carbon_g_per_kwh=None)
    scene.take(says(TOPICS.microgrid("shed"), dark))
    PlainView(out).refresh(scene, None)
    assert shown(out) == "Sun 12:11  jetson-1 -15.0 W  panel +10.0 W  islanded  UNSERVED 5.0 W\n"


def test_the_live_view_shows_progress_balance_nodes_and_events(scene: Scene) -> None:
    out = Console(file=io.StringIO(), width=100, height=50, force_terminal=True, color_system=None)
    view = LiveView(out, "a demonstration")
    try:
        view.phase("running")
        for number in range(12):
            view.event(f"event {number} [not markup]")
        view.refresh(scene, 8.0)
        with out.capture() as captured:
            out.print(view._render())
    finally:
        view.close()
    picture = captured.get()
    assert picture.startswith("a demonstration: running")
    assert "step 11 of 100, 8 s left" in picture
    assert "battery +2.0 W, 50.0%" in picture
    assert "15.02 W (estimated)" in picture
    assert "event 11 [not markup]" in picture
    assert "event 1 " not in picture  # the oldest make room


def test_the_live_view_leaves_the_terminal_as_it_was() -> None:
    out = Console(file=io.StringIO(), force_terminal=True)
    view = LiveView(out, "a demonstration")
    view.close()
    view.close()
    assert shown(out).rindex("\x1b[?25h") > shown(out).rindex("\x1b[?25l")
