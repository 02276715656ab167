"""How the demonstration looks: a live picture on a terminal, plain lines anywhere else."""

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hil.demo.charts import chart
from hil.demo.scene import MicrogridScene, Scene
from hil.devices import Quality
from hil.wire import MicrogridState

LINE_EVERY_S = 5.0


class View(Protocol):
    """Shows the demonstration while it runs."""

    def phase(self, text: str) -> None:
        """What is being started or stopped now."""

    def event(self, text: str) -> None:
        """Something that the coordinator reports."""

    def refresh(self, scene: Scene, left_s: float | None) -> None:
        """Show the newest state; called several times a second."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


class PlainView:
    """One line now and then, for pipes, logs and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def phase(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def event(self, text: str) -> None:
        """A line, indented."""
        self._console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    def refresh(self, scene: Scene, left_s: float | None) -> None:
        """A line every few seconds."""
        now = time.monotonic()
        first = next(iter(scene.microgrids.values()), None)
        if now < self._next or first is None or first.newest is None:
            return
        self._next = now + LINE_EVERY_S
        left = "" if left_s is None else f", {left_s:.0f} s left"
        self.phase(f"{_clock(first.newest)}  {_balance(first.newest)}{left}")

    def close(self) -> None:
        """Nothing to put back."""


class LiveView:
    """A picture that redraws itself."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._phase = ""
        self._events: list[str] = []
        self._scene: Scene | None = None
        self._left_s: float | None = None
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)
        self._live.start()

    def phase(self, text: str) -> None:
        """Shown in the head line."""
        self._phase = text

    def event(self, text: str) -> None:
        """Shown in the list of events."""
        self._events = [*self._events, text][-10:]

    def refresh(self, scene: Scene, left_s: float | None) -> None:
        """Redraw on the next frame."""
        self._scene, self._left_s = scene, left_s

    def close(self) -> None:
        """Take the picture away."""
        self._live.stop()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"{self._title}: {self._phase}", style="bold")]
        if self._scene is not None and self._scene.microgrids:
            parts += [
                self._progress(self._scene),
                *(_panel(name, grid) for name, grid in self._scene.microgrids.items()),
            ]
            parts += [_nodes(self._scene), Text(LEGEND, style="dim")]
        if self._events:
            parts.append(Panel(Text("\n".join(self._events)), title="events", title_align="left"))
        return Group(*parts)

    def _progress(self, scene: Scene) -> RenderableType:
        newest = next(iter(scene.microgrids.values())).newest
        if newest is None or not newest.steps_total:
            return Text("")
        row = Table.grid(padding=(0, 1))
        left = "" if self._left_s is None else f"{self._left_s:.0f} s left"
        row.add_row(
            Text(_clock(newest)),
            ProgressBar(total=newest.steps_total, completed=newest.step + 1, width=40),
            Text(f"step {newest.step + 1} of {newest.steps_total}, {left}"),
        )
        return row


LEGEND = (
    "An emulated node's power goes through its PDU's Modbus registers, an agent's meter and MQTT into each step;\n"
    "limits come back the same way. W: production and discharge +, consumption and charge −, import from the grid −."
)


def _clock(state: MicrogridState) -> str:
    return state.t.strftime("%a %H:%M")


def _balance(state: MicrogridState) -> str:
    parts = [f"{actor.name} {actor.p_w:+.1f} W" for actor in state.actors]
    if state.soc is not None:
        parts.append(f"battery {state.p_battery_w:+.1f} W, {state.soc:.1%}")
    parts.append("islanded" if state.islanded else f"grid {state.p_grid_w:+.1f} W")
    if state.carbon_g_per_kwh is not None:
        parts.append(f"{state.carbon_g_per_kwh:.0f} g/kWh")
    if state.p_unserved_w > 0:
        parts.append(f"UNSERVED {state.p_unserved_w:.1f} W")
    return "  ".join(parts)


def _panel(name: str, grid: MicrogridScene) -> RenderableType:
    state = grid.newest
    if state is None:
        return Text("")
    lines = [_balance(state)]
    socs = [point.soc for point in grid.points]
    if any(soc is not None for soc in socs):
        lines += ["soc 0–100 %", *chart(socs, height=3, low=0.0, high=1.0)]
    return Panel(Text("\n".join(lines)), title=f"microgrid {name}", title_align="left")


def _nodes(scene: Scene) -> RenderableType:
    table = Table("node", "measured", "allowed", "lease", box=None, padding=(0, 2), title_justify="left")
    for name, node in sorted(scene.nodes.items()):
        measured = "unknown" if node.power_w is None else f"{node.power_w:.2f} W"
        mark = "" if node.quality is Quality.GOOD else f" ({node.quality})"
        limit = node.limit
        allowed = "unlimited" if limit is None or limit.effective_w is None else f"{limit.effective_w:.2f} W"
        lease = ""
        if limit is not None and limit.valid_until is not None:
            lease = f"{max(0.0, limit.valid_until.timestamp() - time.time()):.0f} s"
        table.add_row(name, measured + mark, allowed, lease)
    return Panel(table, title="nodes", title_align="left")
