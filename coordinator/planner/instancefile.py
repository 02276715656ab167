"""A planning instance from a JSON file, with every fault of the file at once, by the ids of the parts at fault."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from coordinator.planner.instance import Batch, DemandResponse, Inference, Instance, Job, Site
from hil.yamlfile import ConfigError, Document, Fault, Key, faults_of

_KINDS: Final[dict[str, Any]] = {
    "sites": Site,
    "jobs": Job,
    "inference": Inference,
    "batch": Batch,
    "demand_response": DemandResponse,
}
_SITE_SERIES: Final = ("pue", "buy_price_per_kwh", "sell_price_per_kwh", "carbon_kg_per_kwh", "renewable_kw")


def load_instance(path: Path) -> Instance:
    """The instance that the file holds. Raises ConfigError with every fault."""
    document: Document[Instance] = Document(path)
    document.raw = read_json(path)
    return check_instance(document)


def parse_instance(raw: Any, name: str = "instance") -> Instance:
    """The instance in decoded JSON. Raises ConfigError with every fault."""
    return check_instance(Document(Path(name), raw=raw))


def read_json(path: Path) -> Any:
    """What a JSON file holds; NaN is let through, for the checks name where it stands. Raises ConfigError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise ConfigError([Fault(str(path), None, "file", "unreadable", str(error.strerror))]) from error
    except json.JSONDecodeError as error:
        raise ConfigError([Fault(str(path), error.lineno, "syntax", "not JSON", error.msg)]) from error
    except (ValueError, RecursionError) as error:  # bad UTF-8, a key given twice, or nested too deeply
        raise ConfigError([Fault(str(path), None, "syntax", "not usable", str(error))]) from error


def check_instance(document: Document[Instance]) -> Instance:
    """The instance in a document's raw value. Raises ConfigError with every fault."""
    faults_of(document.raw, Instance, (), document)
    if isinstance(document.raw, dict):
        parts = {name: _readable(document.raw.get(name), kind) for name, kind in _KINDS.items()}
        _check_parts(document, parts)
    if document.faults:
        raise ConfigError([_with_id(fault, document.raw) for fault in document.faults])
    return msgspec.convert(document.raw, Instance)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"key given twice: {', '.join(twice)}")
    return dict(pairs)


def _readable(raw: Any, kind: Any) -> dict[int, Any]:
    """By index, the parts of a list that have the right form; the others' faults are noted already."""
    found = {}
    for index, item in enumerate(raw if isinstance(raw, list) else []):
        try:
            found[index] = msgspec.convert(item, kind)
        except msgspec.ValidationError:
            continue
    return found


def _check_parts(document: Document[Any], parts: dict[str, dict[int, Any]]) -> None:
    raw = document.raw
    slots = raw.get("slots") if isinstance(raw.get("slots"), int) else None
    listed = raw.get("sites") if isinstance(raw.get("sites"), list) else []
    known = {item["id"] for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)}
    if not listed and isinstance(raw.get("sites"), list):
        document.add(("sites",), "none", "expected at least one site")
    for name in _KINDS:
        _check_ids(document, name)
    for index, site in parts["sites"].items():
        _check_site(document, ("sites", index), site, slots)
    gpus = {site.id: site.gpus for site in parts["sites"].values()}
    for index, job in parts["jobs"].items():
        _check_job(document, ("jobs", index), job, known, gpus)
    for index, item in parts["inference"].items():
        key: Key = ("inference", index)
        _check_sites(document, (*key, "sites"), item.sites, known)
        _check_sites(document, (*key, "max_units"), item.max_units, known)
        _check_length(document, (*key, "demand"), item.demand, slots)
    for index, item in parts["batch"].items():
        key = ("batch", index)
        _check_sites(document, (*key, "sites"), item.sites, known)
        for name in ("arrived_gpu_h", "due_gpu_h"):
            curve = getattr(item, name)
            _check_length(document, (*key, name), curve, slots)
            if any(later < earlier for earlier, later in pairwise(curve)):
                document.add((*key, name), "falls", "expected a cumulative curve")
    for index, item in parts["demand_response"].items():
        _check_sites(document, ("demand_response", index, "site"), [item.site], known)
        _check_window(document, ("demand_response", index), item.start_slot, item.end_slot)


def _check_ids(document: Document[Any], name: str) -> None:
    items = document.raw.get(name)
    seen: set[str] = set()
    for index, item in enumerate(items if isinstance(items, list) else []):
        identity = item.get("id") if isinstance(item, dict) else None
        if isinstance(identity, str):
            if identity in seen:
                document.add((name, index, "id"), identity, "given twice, expected each id once")
            seen.add(identity)


def _check_site(document: Document[Any], key: Key, site: Site, slots: int | None) -> None:
    for name in _SITE_SERIES:
        _check_length(document, (*key, name), getattr(site, name), slots)
    if site.generator and site.generator.min_kw > site.generator.max_kw:
        document.add((*key, "generator", "min_kw"), site.generator.min_kw, f"above max_kw {site.generator.max_kw:g}")
    if site.battery:
        for name in ("initial_kwh", "min_kwh", "final_min_kwh"):
            value = getattr(site.battery, name)
            if value > site.battery.capacity_kwh:
                document.add((*key, "battery", name), value, f"above capacity_kwh {site.battery.capacity_kwh:g}")
    for index, window in enumerate(site.outages):
        _check_window(document, (*key, "outages", index), window.start_slot, window.end_slot)


def _check_job(document: Document[Any], key: Key, job: Job, known: set[str], gpus: dict[str, float]) -> None:
    _check_sites(document, (*key, "sites"), job.sites, known)
    _check_sites(document, (*key, "transfer_cost"), job.transfer_cost, known)
    if job.running_site is not None:
        _check_sites(document, (*key, "running_site"), [job.running_site], known)
    if job.deadline_slot <= job.release_slot:
        document.add((*key, "deadline_slot"), job.deadline_slot, f"not after release_slot {job.release_slot}")
    if not job.sites and job.running_site is None:
        document.add((*key, "sites"), "none", "expected at least one site")
    room = [gpus[site] for site in (*job.sites, job.running_site) if site in gpus]
    if room and job.gpus > max(room):
        document.add((*key, "gpus"), job.gpus, f"larger than every site it may run at; the largest has {max(room):g}")
    names = Counter(level.name for level in job.levels)
    for index, level in enumerate(job.levels):
        if names[level.name] > 1:
            document.add((*key, "levels", index, "name"), level.name, "given twice, expected each name once")


def _check_sites(document: Document[Any], key: Key, named: Iterable[str], known: set[str]) -> None:
    for site in named:
        if site not in known:
            document.add(key, site, f"unknown site, expected one of {', '.join(sorted(known)) or 'the listed sites'}")


def _check_length(document: Document[Any], key: Key, series: tuple[float, ...], slots: int | None) -> None:
    if slots is not None and len(series) != slots:
        document.add(key, f"{len(series)} values", f"expected {slots}, one a slot")


def _check_window(document: Document[Any], key: Key, start: int, end: int) -> None:
    if end <= start:
        document.add((*key, "end_slot"), end, f"not after start_slot {start}")


def _with_id(fault: Fault, raw: Any) -> Fault:
    """The same fault, its key naming the part by its id: ``jobs[job-007].gpus``."""
    match = re.match(r"(\w+)\[(\d+)\]", fault.key)
    if match is None or not isinstance(raw, dict) or match[1] not in _KINDS:
        return fault
    item = raw[match[1]][int(match[2])]
    identity = item.get("id") if isinstance(item, dict) else None
    if not isinstance(identity, str):
        return fault
    return replace(fault, key=f"{match[1]}[{identity}]{fault.key[match.end() :]}")
