import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.energy import EnergyMeter
from agent.meters.rapl import RaplMeter, RaplMeterConfig
from agent.sample import EnergyState
from hil.clock import SystemClock
from hil.devices import DeviceFailed, DeviceUnavailable, Quality

Make = Callable[..., Any]
INTEL_J = 262_143.3


async def power_w(meter: RaplMeter) -> float:
    reading = await meter.read()
    assert reading.quality is Quality.GOOD
    assert reading.power_w is not None
    return reading.power_w


async def test_packages_and_dram_together_are_what_the_node_draws(machine: Make) -> None:
    server = machine(300.0, packages=2, dram_share=0.2)
    meter = await server.opened()
    assert await power_w(meter) == pytest.approx(300.0, rel=1e-4)
    await meter.close()


@pytest.mark.parametrize(
    ("zones", "expected_w"), [("psys", 300.0), ("package-0", 120.0), (["core", "uncore"], 192.0), ("dram", 60.0)]
)
async def test_zones_as_asked_for(machine: Make, zones: object, expected_w: float) -> None:
    server = machine(300.0, packages=2, dram_share=0.2, psys=True, mmio=True)
    meter = await server.opened(zones=zones)
    assert await power_w(meter) == pytest.approx(expected_w, rel=1e-4)
    await meter.close()


async def test_it_says_what_it_counts(machine: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent")
    meter = await machine(psys=True, dram_share=0.1, mmio=True).opened()
    assert caplog.messages == ["meter cpu: counts package-0, package-0/dram"]
    await meter.close()


async def test_the_first_reading_waits_until_there_is_something_to_divide(machine: Make) -> None:
    server = machine()
    meter = server.meter()
    await meter.open()
    before = server.clock.monotonic()
    with pytest.raises(DeviceUnavailable, match="stands still"):
        await meter.read()  # the emulated counters move when the test says so
    assert server.clock.monotonic() - before == pytest.approx(0.1)
    await meter.close()


async def test_counters_come_round_unnoticed(machine: Make) -> None:
    server = machine(400.0, start_j=INTEL_J - 600)
    meter = await server.opened()
    for _ in range(5):
        assert await power_w(meter) == pytest.approx(400.0, rel=1e-3)
        await server.run(1.0)
    assert (await meter.read()).energy_j == pytest.approx(2400.0, rel=1e-3)
    await meter.close()


async def test_a_reset_is_a_gap_and_an_epoch(machine: Make) -> None:
    server = machine(start_j=100_000)
    meter = await server.opened()
    assert (await meter.read()).counter_epoch == 0
    await server.run(0.5)
    server.tree.reset()
    await server.run(0.5)
    with pytest.raises(DeviceUnavailable, match="package-0: its energy counter was reset"):
        await meter.read()
    await server.run(1.0)
    reading = await meter.read()
    assert (reading.power_w, reading.energy_j) == (pytest.approx(100.0, rel=1e-3), pytest.approx(100.0, rel=1e-3))
    assert reading.counter_epoch == 1
    await meter.close()


@pytest.mark.parametrize("reset", [True, False])
async def test_a_suspension_is_a_gap(machine: Make, reset: bool) -> None:
    server = machine(start_j=100_000)
    meter = await server.opened()
    await meter.read()
    server.clock.suspend(8 * 3600.0)
    if reset:
        server.tree.reset()
    await server.run(1.0)
    with pytest.raises(DeviceUnavailable, match="suspended"):
        await meter.read()
    await server.run(1.0)
    reading = await meter.read()
    assert (reading.power_w, reading.energy_j) == (pytest.approx(100.0, rel=1e-3), pytest.approx(200.0, rel=1e-3))
    await meter.close()


async def test_a_machine_without_says_so_and_may_get_some_later(tmp_path: Path, machine: Make) -> None:
    server = machine()
    away = server.root.rename(tmp_path / "elsewhere")
    meter = server.meter()
    await meter.open()
    for _ in range(3):
        with pytest.raises(DeviceUnavailable, match=r"^cpu: no powercap here$"):
            await meter.read()
    away.rename(server.root)
    await meter.open()
    await server.run(1.0)
    assert await power_w(meter) == pytest.approx(100.0, rel=1e-3)
    await meter.close()


async def test_files_that_vanish_are_missed_and_found_again(machine: Make) -> None:
    server = machine()
    meter = await server.opened()
    await meter.read()
    server.tree.end()
    for _ in range(3):
        await server.clock.advance(1.0)
        with pytest.raises(DeviceUnavailable, match=r"stands still|is gone|no powercap here"):
            await meter.read()
    server.tree.begin()
    await server.run(1.0)
    assert await power_w(meter) == pytest.approx(100.0, rel=1e-3)
    await meter.close()


async def test_other_zones_than_before_begin_an_epoch(machine: Make) -> None:
    server = machine(packages=2)
    meter = await server.opened()
    await meter.read()
    (server.powercap / "intel-rapl:1").unlink()
    (server.powercap / "intel-rapl:1:0").unlink()
    (server.powercap / "intel-rapl:1:1").unlink()
    await server.clock.advance(1.0)
    with pytest.raises(DeviceUnavailable, match="stands still"):
        await meter.read()
    await server.run(1.0)
    with pytest.raises(DeviceUnavailable, match="not those of the last reading"):
        await meter.read()
    await server.run(1.0)
    reading = await meter.read()
    assert (reading.power_w, reading.counter_epoch) == (pytest.approx(50.0, rel=1e-3), 1)
    await meter.close()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"abc\n", b"12.5\n", b"-7\n", b"\0" * 13, b"9" * 80, b"\xff" * 13, b"1 2"]
)
async def test_garbage_is_no_reading(machine: Make, content: bytes) -> None:
    server = machine()
    meter = await server.opened()
    await meter.read()
    await server.run(1.0)
    counter = server.powercap / "intel-rapl:0/energy_uj"
    good = counter.read_bytes()
    counter.chmod(0o600)
    counter.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DeviceUnavailable, match="package-0: energy_uj holds garbage"):
            await meter.read()
    counter.write_bytes(good)
    await server.run(1.0)
    reading = await meter.read()
    assert reading.power_w == pytest.approx(100.0, rel=1e-3)
    assert reading.energy_j == pytest.approx(300.0, rel=1e-3)
    await meter.close()


async def test_one_zone_that_fails_takes_all_with_it(machine: Make) -> None:
    server = machine(dram_share=0.5)
    meter = await server.opened()
    await meter.read()
    await server.run(1.0)
    counter = server.powercap / "intel-rapl:0:2/energy_uj"
    counter.chmod(0o600)
    counter.write_bytes(b"x")
    with pytest.raises(DeviceUnavailable, match="package-0/dram: energy_uj holds garbage"):
        await meter.read()
    await meter.close()


async def test_no_permission_names_the_group(forbidden_root: Path) -> None:
    meter = RaplMeter(RaplMeterConfig(name="cpu"), forbidden_root, 1.0, SystemClock())
    await meter.open()
    expected = r"^cpu: energy_uj: permission denied, needs group wattloop-meters \(see docs/how-to/rapl.md\)$"
    with pytest.raises(DeviceUnavailable, match=expected):
        await meter.read()
    await meter.close()


async def test_a_pipe_in_the_place_of_a_counter_does_not_block(machine: Make) -> None:
    server = machine()
    counter = server.powercap / "intel-rapl:0/energy_uj"
    counter.unlink()
    os.mkfifo(counter)
    meter = server.meter()
    await meter.open()
    with pytest.raises(DeviceUnavailable, match="energy_uj: not a file"):
        await meter.read()
    await meter.close()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"zones": "psys"}, "no zone psys here; there are package-0, package-0/core, package-0/uncore"),
        ({"zones": ["package", "core"]}, "counted twice"),
        ({"interval_s": 300.0}, "at 400 W its counter comes round every 655 s: expected interval_s of at most 164"),
        ({"backend": "pyrapl"}, "pyRAPL reads /sys alone: expected backend powercap"),
    ],
)
async def test_what_can_never_work_fails_at_once(machine: Make, config: dict[str, object], problem: str) -> None:
    meter = machine().meter(**({"max_w": 400} | config))
    with pytest.raises(DeviceFailed, match=problem):
        await meter.open()
    await meter.close()


async def test_a_lower_maximum_allows_longer_intervals(machine: Make) -> None:
    meter = machine().meter(interval_s=300.0, max_w=200)
    await meter.open()
    await meter.close()


async def test_a_limit_that_was_lowered_makes_no_reading_unbelievable(machine: Make) -> None:
    server = machine(300.0, tdp_w=300)
    for file in server.powercap.glob("intel-rapl:0/constraint_*_uw"):
        file.write_text("20000000\n")
    meter = await server.opened()
    assert await power_w(meter) == pytest.approx(300.0, rel=1e-3)
    await meter.close()


async def test_more_than_the_maximum_is_not_believed(machine: Make) -> None:
    meter = await machine(300.0).opened(max_w=200)
    with pytest.raises(DeviceUnavailable, match="was reset, or shows garbage"):
        await meter.read()
    await meter.close()


class Stuck:
    """Counters that answer when told."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.reads = 0

    def read(self) -> tuple[int, ...]:
        self.reads += 1
        self.answer.wait(30)
        return (self.reads,)

    def close(self) -> None:
        pass


async def test_counters_that_block_hold_up_nobody(machine: Make) -> None:
    counters = Stuck()
    open_these = lambda _zones, _root: counters  # noqa: E731
    config = RaplMeterConfig(name="cpu")
    meter = RaplMeter(config, machine().root, 1.0, SystemClock(), open_these, patience_s=0.05)
    with pytest.raises(DeviceUnavailable, match=r"no answer within 0.05 s"):
        await meter.read()
    with pytest.raises(DeviceUnavailable, match="an earlier reading still blocks"):
        await meter.read()
    assert counters.reads == 1
    counters.answer.set()
    await meter.close()


async def test_a_reset_early_in_an_epoch_is_seen_by_the_agents_books_too(machine: Make) -> None:
    server = machine(start_j=100_000)
    meter, books = await server.opened(), EnergyMeter()
    books.take(await meter.read(), 0.0)
    await server.run(0.1)
    assert books.take(await meter.read(), 0.1) == EnergyState(pytest.approx(110.0, rel=1e-3), 0, device=True)
    server.tree.reset()
    await server.run(0.5)
    with pytest.raises(DeviceUnavailable):
        await meter.read()
    await server.run(2.0)
    # More than before the reset, so that the number alone would not tell.
    assert books.take(await meter.read(), 2.6) == EnergyState(pytest.approx(200.0, rel=1e-3), 1, device=True)
    await meter.close()


async def test_a_later_life_begins_an_epoch(machine: Make) -> None:
    server = machine()
    for epoch in range(3):
        meter = await server.opened()
        books = EnergyMeter(EnergyState(5.0, epoch, device=True))
        assert books.take(await meter.read(), 0.0) == EnergyState(
            pytest.approx(100.0, rel=1e-3), epoch + 1, device=True
        )
        await meter.close()
