"""Whatever the files hold: a named reason, or a reading that can be.

``WATTLOOP_SEED`` chooses the contents, ``WATTLOOP_BLOCKS`` how many there are (10⁴ unless told).
"""

import math
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from hil.devices import DeviceError, DeviceUnavailable, Quality

SEED = int(os.environ.get("WATTLOOP_SEED", "20260621"))
BLOCKS = int(os.environ.get("WATTLOOP_BLOCKS", "10000"))
MAX_W = 400.0
Make = Callable[..., Any]


def content(rng: random.Random, good: bytes) -> bytes:
    """What a file might hold: the truth, a truth of another time or unit, the truth damaged, or anything."""
    number = int(good)
    match rng.randrange(10):
        case 0 | 1 | 2:
            return good
        case 3:
            return b"%d\n" % rng.choice([0, 1, number // 1000, number * 1000, number - 10**7, 262_143_328_850, 2**64])
        case 4:
            return b"%d\n" % rng.randrange(262_143_328_851)
        case 5:
            return good[: rng.randrange(len(good))]
        case 6:
            damaged = bytearray(good)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            return bytes(damaged)
        case 7:
            return rng.choice(
                [b"", b"\n", b"nan\n", b"inf\n", b"-1\n", b"1e9\n", b"0x10\n", b" 7\n", b"1_000\n", "٣\n".encode()]
            )
        case _:
            return rng.randbytes(rng.randrange(80))


async def test_counters_that_hold_anything(machine: Make) -> None:
    print(f"WATTLOOP_SEED={SEED}")
    rng = random.Random(SEED)
    server = machine(100.0, dram_share=0.3)
    meter = server.meter(max_w=MAX_W)
    await meter.open()
    counters = [(server.powercap / f"intel-rapl:{zone}/energy_uj").resolve() for zone in ("0", "0:2")]
    for counter in counters:
        counter.chmod(0o600)
    reasons: Counter[str] = Counter()
    for _ in range(BLOCKS):
        span_s = rng.choice([0.05, 1.0, 30.0])
        server.clock.stall(span_s)
        server.refresh()
        broken = rng.choice(counters)
        good = broken.read_bytes()
        with broken.open("r+b") as file:
            file.write(content(rng, good))
            file.truncate()
        try:
            reading = await meter.read()
        except DeviceUnavailable as error:
            reasons[error.what] += 1
        else:
            assert reading.quality is Quality.GOOD
            assert reading.power_w is not None
            assert 0 < reading.power_w <= 2 * MAX_W * (1 + 0.01 / span_s)
            assert reading.energy_j is not None
            assert math.isfinite(reading.energy_j)
        broken.write_bytes(good)
    assert BLOCKS / 10 < reasons.total() < BLOCKS
    assert len(reasons) < 10  # a reason is one of few, or nobody could read the log
    assert all(reasons)
    await meter.close()


async def test_descriptions_that_hold_anything(machine: Make) -> None:
    print(f"WATTLOOP_SEED={SEED}")
    rng = random.Random(SEED)
    server = machine(100.0, psys=True)
    files = [file for file in server.root.rglob("*") if file.name in {"name", "max_energy_range_uj"} and file.is_file()]
    files += list(server.root.rglob("constraint_*_uw"))
    reasons: set[str] = set()
    for _ in range(BLOCKS // 20):
        broken = rng.choice(files)
        before = broken.read_bytes()
        broken.chmod(0o600)
        broken.write_bytes(
            rng.choice([rng.randbytes(rng.randrange(80)), b"package-0\n", b"psys\n", b"0\n", b"1\n", b"dram"])
        )
        meter = server.meter()
        try:
            await meter.open()
            await server.run(1.0)
            reading = await meter.read()
        except DeviceError as error:
            reasons.add(error.what)
        else:
            assert reading.power_w is not None
            assert 0 < reading.power_w <= 1000.0
        await meter.close()
        broken.write_bytes(before)
    assert reasons
    assert all(reasons)
