import re
from pathlib import Path

from coordinator.scenario import load_scenario
from coordinator.sketch import scenario_from
from hil.clock import ManualClock
from hil.wire import ActuatorInfo, Birth, MeterInfo


def birth(node: str, nameplate_w: float | None, *meters: MeterInfo, actuators: tuple[ActuatorInfo, ...] = ()) -> Birth:
    return Birth(
        node=node,
        version="0.1.0",
        boot_id="b",
        stream="0" * 16,
        epoch=0,
        mode="act",
        nameplate_w=nameplate_w,
        failsafe="release",
        sync="tick",
        clock_synchronised=True,
        meters=list(meters),
        actuators=list(actuators),
    )


def meter(name: str, measures: str) -> MeterInfo:
    return MeterInfo(name=name, kind="modbus", measures=measures, interval_s=1.0)


HEARD = [
    birth("gateway", None, meter("outlet-1", "jetson-1"), meter("outlet-2", "jetson-2")),
    birth(
        "jetson-1",
        20.0,
        meter("ina", "jetson-1"),
        actuators=(
            ActuatorInfo(name="board", kind="emulated", actions=["limit"], min_w=5.0, max_w=20.0, profiles=["eco"]),
        ),
    ),
]


def test_a_sketch_runs_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(scenario_from(HEARD, "lab", "mqtt://broker.lab:1883"), encoding="utf-8")
    scenario = load_scenario(path, ManualClock())
    assert (scenario.site, scenario.config.broker.url) == ("lab", "mqtt://broker.lab:1883")
    one, two = scenario.microgrids[0].nodes
    assert (one.node, one.nameplate_w, [str(ref) for ref in one.meters]) == (
        "jetson-1",
        20.0,
        ["gateway/outlet-1", "jetson-1/ina"],
    )
    assert (two.node, two.nameplate_w) == ("jetson-2", 100.0)


def test_a_sketch_says_what_it_does_not_know() -> None:
    text = scenario_from(HEARD, "lab", "mqtt://broker.lab:1883")
    assert "nameplate_w: 100   # not announced: put what it draws at most" in text
    assert "# actuator board: limit 5..20 W, profiles eco" in text
    assert "# no actuator: its power cannot be limited" in text


def test_what_a_sketch_suggests_in_comments_is_valid(tmp_path: Path) -> None:
    text = scenario_from(HEARD, "lab", "mqtt://broker.lab:1883")
    lines = [re.sub(r"^( *)# ", r"\1", line) for line in text.splitlines() if "carbon.csv" not in line]
    text = "\n".join(lines).replace("NODE", "jetson-1").replace("WATTS", "7.5")
    for prose in ("A scenario for", "`wattloop", "actuator board", "no actuator"):
        text = "\n".join(line for line in text.splitlines() if not line.strip().startswith(prose))
    path = tmp_path / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "solar.csv").write_text("time_s,solar\n0,1\n60,2\n", encoding="utf-8")
    (tmp_path / "my_controller.py").write_text("class MyController:\n    def step(self, seen): ...\n", encoding="utf-8")
    scenario = load_scenario(path, ManualClock())
    assert len(scenario.controllers) == 2
    assert len(scenario.microgrids[0].actors) == 4
    assert scenario.microgrids[0].carbon is not None


def test_a_sketch_of_nobody_is_still_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(scenario_from([], "lab", "mqtt://127.0.0.1:1883"), encoding="utf-8")
    assert load_scenario(path, ManualClock()).microgrids[0].nodes == ()
