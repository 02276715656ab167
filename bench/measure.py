"""What benches share: medians with their spread, percentiles, and the machine. Run it to see the machine's line."""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def machine() -> dict[str, object]:
    """The machine, in the words of a report: cores, memory, system, Python, and how busy it is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "cpu": _field(Path("/proc/cpuinfo"), "model name", ":"),
        "system": _field(Path("/etc/os-release"), "PRETTY_NAME", "="),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, ``share`` from 0 to 1."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def medians(runs: Sequence[Mapping[str, float]], digits: int = 3) -> dict[str, object]:
    """Per figure the median over the runs; under ``spread`` the lowest and the highest run."""
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    spread = {name: [round(min(values), digits), round(max(values), digits)] for name, values in columns.items()}
    return {name: round(statistics.median(values), digits) for name, values in columns.items()} | {"spread": spread}


def _field(path: Path, key: str, separator: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(separator)[2].strip(' "') for line in lines if line.startswith(key)), None)


if __name__ == "__main__":
    print(json.dumps({"machine": machine()}))
