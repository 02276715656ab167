"""Configuration files: every fault at once, each with its line, key, value and what was expected."""

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from hil.yamlfile import ConfigError, Document, Section, describe, dotted, load, show


class Mode(enum.StrEnum):
    OBSERVE = "observe"
    ACT = "act"


class Replay(Section, frozen=True, kw_only=True, tag="replay", tag_field="kind"):
    file: str
    power_w: float


class Modbus(Section, frozen=True, kw_only=True, tag="modbus", tag_field="kind"):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 502


class Bounds(Section, frozen=True, kw_only=True):
    min_w: float = 0.0
    max_w: float = 100.0

    def __post_init__(self) -> None:
        if self.min_w > self.max_w:
            raise ValueError("min_w must not exceed max_w")


class Config(Section, frozen=True, kw_only=True):
    node: str
    meters: Annotated[list[Replay | Modbus], msgspec.Meta(max_length=3)] = msgspec.field(default_factory=list)
    bounds: Bounds = Bounds()
    spare: Bounds | None = None
    named: dict[str, Bounds] = msgspec.field(default_factory=dict)
    window: tuple[float, float] = (0.0, 1.0)
    mode: Mode = Mode.OBSERVE
    sync: Literal["tick", "off"] = "tick"
    level: Annotated[float, msgspec.Meta(ge=0)] | None = None
    start: datetime | None = None


def file_with(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    """The faults of a file as ``line: key: value: expected``."""
    path = file_with(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, Config)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.faults)
    assert all(line.startswith(str(path)) for line in lines)
    return [line.removeprefix(str(path)).removeprefix(":").strip() for line in lines]


def test_a_good_file_becomes_a_struct(tmp_path: Path) -> None:
    text = """
    node: jetson-1
    meters:
      - {kind: modbus, host: 10.0.0.5}
      - kind: replay
        file: day.csv
        power_w: 5          # a whole number is a number
    named: {summer: {max_w: 50}}
    window: [0, 2.5]
    mode: act
    level: null
    start: 2026-06-21T20:00:00Z
    """
    document = load(file_with(tmp_path, text), Config)
    assert document.value == Config(
        node="jetson-1",
        meters=[Modbus(host="10.0.0.5"), Replay(file="day.csv", power_w=5.0)],
        named={"summer": Bounds(max_w=50.0)},
        window=(0.0, 2.5),
        mode=Mode.ACT,
        start=datetime(2026, 6, 21, 20, tzinfo=UTC),
    )


def test_all_faults_of_a_file_are_told_at_once_in_its_order(tmp_path: Path) -> None:
    text = """\
nod: jetson-1
meters:
  - kind: modbus
    host: 5
    port: 70000
  - kind: replay
    power_w: .nan
    colour: red
bounds: {min_w: 5, max_w: 1}
bounds: {min_w: 5, max_w: 2}
mode: watch
window: [1, two]
"""
    assert faults(tmp_path, text) == [
        "1: nod: jetson-1: unknown key, did you mean node?",
        "1: node: missing: expected a text",
        "4: meters[0].host: 5: expected str, got int",
        "5: meters[0].port: 70000: expected int <= 65535",
        "6: meters[1].file: missing: expected a text",
        "7: meters[1].power_w: nan: expected a finite number",
        "8: meters[1].colour: red: unknown key, expected one of file, power_w",
        "10: bounds: given twice: expected each key once",
        "10: bounds: {'min_w': 5, 'max_w': 2}: min_w must not exceed max_w",
        "11: mode: watch: expected one of observe, act",
        "12: window[1]: two: expected float, got str",
    ]


def test_a_fault_says_where_what_and_what_was_expected(tmp_path: Path) -> None:
    path = file_with(tmp_path, "node: a\nlevel: -1\n")
    with pytest.raises(ConfigError) as caught:
        load(path, Config)
    [fault] = caught.value.faults
    assert (fault.file, fault.line, fault.key, fault.value, fault.expected) == (
        str(path),
        2,
        "level",
        "-1",
        "expected float >= 0.0",
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("node: 5", "1: node: 5: expected str, got int"),
        ("node: on", "1: node: True: expected str, got bool"),
        ("node: null", "1: node: None: expected str, got null"),
        ("node: [a]", "1: node: ['a']: expected str, got array"),
        ("meters: {}", "2: meters: {}: expected array, got object"),
        ("meters: 5", "2: meters: 5: expected array, got int"),
        ("meters: [5]", "2: meters[0]: 5: expected object, got int"),
        ("meters: [{}]", "2: meters[0].kind: missing: expected one of replay, modbus"),
        ("meters: [{kind: lamp}]", "2: meters[0].kind: lamp: expected one of replay, modbus"),
        ("meters: [{kind: [modbus]}]", "2: meters[0].kind: ['modbus']: expected one of replay, modbus"),
        ("meters: [{kind: modbus, host: a, port: 0}]", "2: meters[0].port: 0: expected int >= 1"),
        (f"meters: [{', '.join(['{kind: modbus, host: a}'] * 4)}]", "expected array of length <= 3"),
        ("bounds: 5", "2: bounds: 5: expected a mapping with min_w, max_w"),
        ("bounds: null", "2: bounds: None: expected a mapping with min_w, max_w"),
        ("bounds: {min: 5}", "2: bounds.min: 5: unknown key, did you mean min_w?"),
        ("spare: {min_w: x}", "2: spare.min_w: x: expected float, got str"),
        ("spare: {min_w: 9, max_w: 1}", "2: spare: {'min_w': 9, 'max_w': 1}: min_w must not exceed max_w"),
        ("named: {a: {max_w: true}}", "2: named.a.max_w: True: expected float, got bool"),
        ("named: {5: {}}", "2: named.5: 5: expected str, got int"),
        ("named: {a: {min_w: .inf}}", "2: named.a.min_w: inf: expected a finite number"),
        ("window: [1]", "2: window: [1]: expected array of length 2, got 1"),
        ("window: [1, 2, 3]", "2: window: [1, 2, 3]: expected array of length 2, got 3"),
        ("window: [1, -.inf]", "2: window[1]: -inf: expected a finite number"),
        ("level: 1e3", "2: level: 1e3: expected float, got str"),  # to YAML 1.1 this is a text
        (f"level: {'9' * 400}", "number out of range"),
        ("start: 2026-06-21", "2: start: 2026-06-21: expected datetime"),
        ("mode: ACT", "2: mode: ACT: expected one of observe, act"),
        ("sync: off", "2: sync: False: expected one of tick, off"),
        ("zzz: 1", "2: zzz: 1: unknown key, expected one of node, meters"),
        ("7: 1", "2: 7: 1: unknown key"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, line: str, told: str) -> None:
    text = line if line.startswith("node") else f"node: a\n{line}"
    [fault] = faults(tmp_path, text)
    assert told in fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("node: [a", "syntax: not YAML: "),
        ("node: a\n\tlevel: 1", "2: syntax: not YAML: found character '\\t' that cannot start any token"),
        ("node: a\n--- \nnode: b", "2: syntax: not YAML: but found another document"),
        ("node: !!python/object:os.system x", "1: syntax: not YAML: could not determine a constructor"),
        ("node: *nowhere", "1: syntax: not YAML: found undefined alias"),
        ("? [a]\n: b", "1: syntax: not YAML: found unhashable key"),
        ("start: 2026-13-45", "syntax: not YAML: month must be in 1..12"),
        ("node: \x00", "syntax: not YAML: unacceptable character #x0000"),
        (b"node: \xff\xfe", "file: unreadable: not UTF-8 text"),
        ("- node", "1: (top level): ['node']: expected a mapping with node, meters"),
        ("text", "1: (top level): text: expected a mapping with node, meters"),
        ("", "node: missing: expected a text"),
        ("# only a comment", "node: missing: expected a text"),
        ("node: &x [*x]", "nested too deeply, or an alias inside its own anchor"),
        ("node: " + "[" * 1_000 + "]" * 1_000, "nested too deeply"),
    ],
)
def test_what_is_not_such_a_file(tmp_path: Path, text: str | bytes, told: str) -> None:
    [fault] = faults(tmp_path, text)
    assert told in fault


def test_aliases_of_aliases_do_not_multiply_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    [fault] = faults(tmp_path, "\n".join(lines))
    assert "more than 100000 values" in fault


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path, Config)
        assert str(caught.value) == f"{path}: file: unreadable: {why}"


def test_an_anchor_may_be_used_twice_and_its_faults_are_told_at_each_use(tmp_path: Path) -> None:
    text = "node: a\nbounds: &b {min_w: -1, colour: red}\nspare: *b\n"
    assert faults(tmp_path, text) == [
        "2: bounds.colour: red: unknown key, expected one of min_w, max_w",
        "2: spare.colour: red: unknown key, expected one of min_w, max_w",
    ]


def test_later_checks_add_faults_with_their_lines(tmp_path: Path) -> None:
    document = load(file_with(tmp_path, "node: a\nnamed:\n  summer:\n    max_w: 50\n"), Config)
    document.add(("named", "summer", "max_w"), 50, "expected less than the winter's")
    document.add(("named", "summer", "not", "there"), "missing", "expected it")
    document.add(("meters", 0), "missing", "expected at least one")
    with pytest.raises(ConfigError) as caught:
        document.check()
    assert [(fault.line, fault.key) for fault in caught.value.faults] == [
        (1, "meters[0]"),
        (3, "named.summer.not.there"),
        (4, "named.summer.max_w"),
    ]


def test_names_of_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    document: Document[Config] = load(file_with(tmp_path, "node: a"), Config)
    assert document.resolve("traces/day.csv") == tmp_path / "traces" / "day.csv"
    assert document.resolve("../day.csv") == tmp_path.parent / "day.csv"
    assert document.resolve("/etc/day.csv") == Path("/etc/day.csv")
    assert document.resolve("~/day.csv") == Path.home() / "day.csv"


def test_values_and_keys_for_people() -> None:
    assert dotted(("meters", 0, "registers", "power")) == "meters[0].registers.power"
    assert dotted(()) == "(top level)"
    assert show("two\nlines") == "two lines"
    assert show(5.0) == "5.0"
    assert len(show("x" * 500)) == 78
    assert describe(float) == "a number"
    assert describe(Annotated[int, msgspec.Meta(ge=1)]) == "a whole number"
    assert describe(Bounds | None) == "a mapping"
    assert describe(float | str) == "a number or a text"
    assert describe(list[str]) == describe(tuple[int, ...]) == "a list"
