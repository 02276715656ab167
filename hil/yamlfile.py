"""YAML configuration into typed structs, with every fault of the file reported at once."""

import difflib
import enum
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

T = TypeVar("T")

Key = tuple[str | int, ...]

MAX_NODES: Final = 100_000


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration struct: unknown keys are faults."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file: where, what stands there, and what was expected."""

    file: str
    line: int | None
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.value}: {self.expected}"


class ConfigError(Exception):
    """A configuration that cannot be used; ``faults`` names every one of its faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(slots=True)
class Document(Generic[T]):
    """A file as read: its struct, and where its keys stand, for checks that look across keys."""

    path: Path
    lines: dict[Key, int] = field(default_factory=dict)
    raw: Any = None
    faults: list[Fault] = field(default_factory=list)
    value: T = None  # type: ignore[assignment]  # set by load before anyone sees the document

    def add(self, key: Key, value: object, expected: str) -> None:
        """Note a fault; ``check`` raises once all are known."""
        line = next((self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines), None)
        self.faults.append(Fault(str(self.path), line, dotted(key), show(value), expected))

    def check(self) -> None:
        """Raise ConfigError if any fault was noted."""
        if self.faults:
            raise ConfigError(sorted(self.faults, key=lambda fault: fault.line or 0))

    def resolve(self, name: str) -> Path:
        """A path named in the file: relative ones are relative to the file, ``~`` is the user's home."""
        return (self.path.parent / Path(name).expanduser()).resolve()


def load(path: Path, kind: type[T]) -> Document[T]:
    """Read ``path`` as a ``kind``. Raises ConfigError with every fault; later checks may add to the document."""
    document: Document[T] = Document(path)
    document.raw = _parse(path, document)
    if document.raw is None:
        document.raw = {}
    faults_of(document.raw, kind, (), document)
    document.check()
    try:
        document.value = msgspec.convert(document.raw, kind)
    except msgspec.ValidationError as error:  # a rule that spans fields, from a struct's __post_init__
        document.add((), "the file as a whole", _plain(error))
        document.check()
    return document


def faults_of(value: Any, kind: Any, key: Key, document: Document[Any]) -> None:
    """Note in ``document`` everything about ``value`` that does not fit ``kind``."""
    if isinstance(value, float) and not math.isfinite(value):
        document.add(key, value, "expected a finite number")
        return
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    origin = get_origin(bare)
    if origin in {Union, types.UnionType}:
        _faults_of_union(value, kind, get_args(bare), key, document)
    elif isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        _faults_of_struct(value, bare, key, document)
    else:
        noted = len(document.faults)
        if origin in {list, tuple} and isinstance(value, list) and len(set(get_args(bare)) - {...}) == 1:
            for index, item in enumerate(value):
                faults_of(item, get_args(bare)[0], (*key, index), document)
        elif origin is dict and isinstance(value, dict):
            key_kind, value_kind = get_args(bare)
            for name, item in value.items():
                _faults_of_scalar(name, key_kind, (*key, str(name)), document)
                faults_of(item, value_kind, (*key, str(name)), document)
        if len(document.faults) == noted:  # how many there may be is a rule of the whole
            _faults_of_scalar(value, kind, key, document)


def _faults_of_struct(value: Any, kind: type[msgspec.Struct], key: Key, document: Document[Any]) -> None:
    if not isinstance(value, dict):
        document.add(key, value, f"expected a mapping with {', '.join(_names(kind))}")
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {info.encode_name: info for info in msgspec.structs.fields(kind)}
    tag_field = kind.__struct_config__.tag_field
    noted = len(document.faults)
    for name in value:
        if name not in fields and name != tag_field:
            document.add((*key, str(name)), value[name], _unknown(str(name), [*fields]))
    for name, info in fields.items():
        if name in value:
            faults_of(value[name], hints[info.name], (*key, name), document)
        elif info.required:
            document.add((*key, name), "missing", f"expected {describe(hints[info.name])}")
    if len(document.faults) == noted:  # rules that span fields live in __post_init__
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            document.add(key, value, _plain(error))


def _faults_of_union(value: Any, kind: Any, members: tuple[Any, ...], key: Key, document: Document[Any]) -> None:
    if value is None and type(None) in members:
        return
    structs = [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]
    if structs and isinstance(value, dict):
        if len(structs) == 1:
            _faults_of_struct(value, structs[0], key, document)
            return
        tag_field = structs[0].__struct_config__.tag_field
        by_tag = {member.__struct_config__.tag: member for member in structs}
        assert tag_field is not None  # noqa: S101  # msgspec takes no union of untagged structs
        if tag_field not in value:
            document.add((*key, tag_field), "missing", f"expected one of {', '.join(map(str, by_tag))}")
        elif not isinstance(value[tag_field], str | int) or value[tag_field] not in by_tag:
            document.add((*key, tag_field), value[tag_field], f"expected one of {', '.join(map(str, by_tag))}")
        else:
            _faults_of_struct(value, by_tag[value[tag_field]], key, document)
        return
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        faults_of(value, others[0], key, document)
    else:
        _faults_of_scalar(value, kind, key, document)


def _faults_of_scalar(value: Any, kind: Any, key: Key, document: Document[Any]) -> None:
    choices = _choices(kind)
    if choices and value not in choices:
        document.add(key, value, f"expected one of {', '.join(map(str, choices))}")
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        document.add(key, value, _plain(error))


def _choices(kind: Any) -> list[Any]:
    """The values of a Literal or an enum; none for other kinds."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [member.value for member in kind]
    return []


def _parse(path: Path, document: Document[Any]) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError([Fault(str(path), None, "file", "unreadable", str(reason))]) from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            return _construct(loader, document)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        line = mark.line + 1 if mark else None
        raise ConfigError([Fault(str(path), line, "syntax", "not YAML", problem)]) from error
    except ValueError as error:  # a date such as 2026-13-45
        raise ConfigError([Fault(str(path), None, "syntax", "not YAML", str(error))]) from error
    except RecursionError as error:
        why = "nested too deeply, or an alias inside its own anchor"
        raise ConfigError([Fault(str(path), None, "syntax", "not usable", why)]) from error


def _construct(loader: yaml.SafeLoader, document: Document[Any]) -> Any:
    node = loader.get_single_node()
    if node is None:
        return None
    for count, (key, child) in enumerate(_walk(node, (), document)):
        if count > MAX_NODES:  # aliases of aliases: few lines, and a structure without end
            raise ValueError(f"more than {MAX_NODES} values")
        document.lines.setdefault(key, child.start_mark.line + 1)
    return loader.construct_document(node)


def _walk(node: yaml.Node, key: Key, document: Document[Any]) -> Iterator[tuple[Key, yaml.Node]]:
    yield key, node
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*key, index), document)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for name_node, value_node in node.value:
            name = str(name_node.value)
            child = (*key, name)
            document.lines.setdefault(child, name_node.start_mark.line + 1)
            if name in seen:
                document.lines[child] = name_node.start_mark.line + 1
                document.add(child, "given twice", "expected each key once")
            seen.add(name)
            yield from _walk(value_node, child, document)


def dotted(key: Key) -> str:
    """A key path for people: ``meters[0].registers.power``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(top level)"


def show(value: object) -> str:
    """A value for people, on one line and not too long."""
    text = str(value) if isinstance(value, str | date) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "…"


def describe(kind: Any) -> str:
    """A type for people: ``a number``, ``a mapping``."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    if bare in names:
        return names[bare]
    origin = get_origin(bare)
    if origin in {Union, types.UnionType}:
        return " or ".join(describe(member) for member in get_args(bare) if member is not type(None))
    if origin in {list, tuple}:
        return "a list"
    if origin is dict or (isinstance(bare, type) and issubclass(bare, msgspec.Struct)):
        return "a mapping"
    return getattr(bare, "__name__", str(bare)).lower()


def _names(kind: type[msgspec.Struct]) -> list[str]:
    tag_field = kind.__struct_config__.tag_field
    return ([tag_field] if tag_field else []) + [info.encode_name for info in msgspec.structs.fields(kind)]


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"unknown key, did you mean {close[0]}?"
    return f"unknown key, expected one of {', '.join(known)}"


def _plain(error: msgspec.ValidationError) -> str:
    text = str(error).partition(" - at `")[0].replace("`", "")
    return text[0].lower() + text[1:]
