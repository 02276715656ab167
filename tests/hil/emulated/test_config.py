from pathlib import Path

import pytest

from hil.emulated.config import load_emulation
from hil.yamlfile import ConfigError

SCENARIOS = Path(__file__).parents[3] / "scenarios"


def faults(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_emulation(path)
    return [str(fault).removeprefix(str(path)) for fault in caught.value.faults]


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("emulated-*.yaml")), ids=lambda path: path.stem)
def test_shipped_worlds_can_be_read(path: Path):
    assert load_emulation(path).value.nodes


def test_all_figures_reach_the_node(tmp_path: Path):
    path = tmp_path / "w.yaml"
    path.write_text(
        "nodes:\n- {name: a, load: {kind: constant, power_w: 15}, idle_w: 1, max_w: 20, lag_ms: 30, noise_w: 0.2, "
        "seed: 9, journal: j/a.csv}\npdus:\n- {name: p, outlets: {2: a}}\n"
    )
    document = load_emulation(path)
    (node,) = document.value.nodes
    traits = node.traits
    assert (traits.idle_w, traits.max_w, traits.lag_s, traits.noise_w, traits.seed) == (1, 20, 0.03, 0.2, 9)
    assert document.value.pdus[0].outlets == {2: "a"}
    assert document.value.control.port == 0


def test_every_fault_of_the_fields_is_reported_at_once(tmp_path: Path):
    found = faults(
        tmp_path,
        "nodes:\n"
        "- {name: Jetson, load: {kind: constant, power_w: -1}}\n"
        "- {name: b, load: {kind: banana}, lag_ms: x}\n"
        "- {name: c, load: {kind: constant, power_w: 1}, idle_w: 9, max_w: 5}\n"
        "pdus:\n- {name: p, port: 70000, unit: 0, outlets: {0: b}, colour: red}\n",
    )
    joined = "\n".join(found)
    for expected in (
        ":2: nodes[0].name: Jetson",
        ":2: nodes[0].load.power_w: -1",
        ":3: nodes[1].load.kind: banana: expected one of constant, points, sine, walk",
        ":3: nodes[1].lag_ms: x",
        "expected idle_w at most max_w, not 9 and 5",
        ":6: pdus[0].port: 70000",
        ":6: pdus[0].unit: 0",
        ":6: pdus[0].colour: red: unknown key",
    ):
        assert expected in joined


def test_names_and_places_are_checked_across_the_file(tmp_path: Path):
    found = faults(
        tmp_path,
        "nodes:\n- {name: a, load: {kind: constant, power_w: 1}}\n- {name: a, load: {kind: constant, power_w: 1}}\n"
        "pdus:\n"
        "- {name: p, port: 5020, outlets: {1: ghost}}\n"
        "- {name: p, port: 5020, outlets: {1: a}}\n"
        "- {name: q, port: 0, outlets: {1: a}}\n"
        "- {name: r, port: 0, outlets: {1: a}}\n",
    )
    assert found == [
        ":3: nodes[1].name: a: expected each name once",
        ":5: pdus[0].outlets.1: ghost: expected the name of a node above",
        ":6: pdus[1].name: p: expected each name once",
        ":6: pdus[1].unit: 1: another unit on 127.0.0.1:5020 has this number",
    ]


NODE = "nodes:\n- {name: a, load: {kind: constant, power_w: 1}}\n"
PROFILE = "outlets: {count: 2, stride: 10}\nregisters:\n  power_w: {address: 0, type: f32}\n"


def test_units_show_nodes_through_profiles(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(PROFILE)
    path = tmp_path / "w.yaml"
    path.write_text(
        NODE + "units:\n"
        "- {name: one, profile: p.yaml, node: a, unit: 5, serial: {link: tty, baudrate: 19200, turnaround_ms: 20}}\n"
        "- {name: two, profile: p.yaml, outlets: {2: a}, port: 5022, framing: rtu}\n"
    )
    one, two = load_emulation(path).value.units
    assert one.serial is not None
    assert (one.feeds, one.serial.settings.baudrate, one.serial.settings.turnaround_s) == ({1: "a"}, 19200, 0.02)
    assert (two.feeds, two.framing) == ({2: "a"}, "rtu")


def test_units_are_checked_across_the_file(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(PROFILE)
    found = faults(
        tmp_path,
        NODE + "pdus:\n- {name: one, outlets: {1: a}, serial: {link: tty}}\nunits:\n"
        "- {name: one, profile: p.yaml, node: a, unit: 2, serial: {link: tty, baudrate: 19200}}\n"
        "- {name: two, profile: p.yaml, outlets: {3: ghost}}\n"
        "- {name: three, profile: none.yaml, node: a}\n",
    )
    assert found == [
        ":6: units[0].name: one: expected each name once",
        ":6: units[0]: tty: expected the same settings as for another unit there",
        ":7: units[1].outlets.3: ghost: expected the name of a node above",
        ":7: units[1].outlets.3: 3: expected 1 to 2",
        f":8: units[2].profile: none.yaml: {tmp_path}/none.yaml: file: unreadable: No such file or directory",
    ]


def test_a_unit_is_in_one_place_and_feeds_from_one_list(tmp_path: Path):
    found = faults(
        tmp_path,
        NODE + "units:\n- {name: one, profile: p.yaml}\n"
        "- {name: two, profile: p.yaml, node: a, port: 5020, serial: {link: tty}}\n",
    )
    assert [fault.rpartition(": ")[2] for fault in found] == [
        "expected either node or outlets",
        "expected port and framing only without serial",
    ]


def test_the_world_of_the_documentation_can_be_read(tmp_path: Path):
    root = SCENARIOS.parent
    page = (root / "docs" / "how-to" / "emulate.md").read_text()
    path = tmp_path / "w.yaml"
    path.write_text(page.partition("```yaml\n")[2].partition("```")[0].replace("../..", str(root)))
    assert [unit.name for unit in load_emulation(path).value.units] == ["meter-tcp", "meter-line", "meter-converter"]
