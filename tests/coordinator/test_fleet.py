import pytest

from coordinator.controllers.api import Limit, Release
from coordinator.fleet import Fleet, Journal, Notice
from coordinator.records import AckRow, CommandRow, EffectRow
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock
from hil.devices import Quality
from hil.wire import (
    Ack,
    AckState,
    Action,
    ActuatorInfo,
    Birth,
    Command,
    Effect,
    MeterInfo,
    NodeState,
    Presence,
    Topics,
    decode,
)

TOPICS = Topics("lab")
NODE = "jetson-1"


class Bench:
    """A fleet on a memory bus, with everything it reports kept in lists."""

    def __init__(self, epoch: int = 7) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, self.clock.monotonic)
        self.acks: list[AckRow] = []
        self.effects: list[EffectRow] = []
        self.notices: list[Notice] = []
        self.stale: list[str] = []
        journal = Journal(self.acks.append, self.effects.append, self.notices.append, self.stale.append)
        self.fleet = Fleet(TOPICS, "lab", epoch, 60.0, 100, self.clock, self.bus, journal)
        self.agent = MemoryBus(self.broker, self.clock.monotonic)
        self.agent.subscribe(TOPICS.node("+").cmd)

    async def start(self) -> None:
        await self.bus.start()
        await self.agent.start()

    def turn(self) -> list[CommandRow]:
        """Decide and publish, as the loop does after a commit."""
        rows = self.fleet.decide(3, 1_000_000)
        self.fleet.publish(rows)
        return rows

    async def heard(self) -> list[Command]:
        return [decode(message.payload, Command) for message in await self.agent.receive()]

    def answer(self, command: Command, state: AckState, effect: Effect = Effect.PENDING, code: str = "") -> None:
        self.fleet.on_ack(
            NODE,
            Ack(
                id=command.id,
                issuer=command.issuer,
                epoch=command.epoch,
                seq=command.seq,
                actuator=command.target.actuator,
                state=state,
                effect=effect,
                code=code,
                applied_w=command.limit_w,
                measured_w=7.4 if effect is not Effect.PENDING else None,
            ),
        )


def birth(*, meter: bool = True, actions: tuple[str, ...] = ("limit", "release")) -> Birth:
    return Birth(
        node=NODE,
        version="0",
        boot_id="b",
        stream="00000000",
        epoch=0,
        mode="act",
        nameplate_w=20.0,
        failsafe="release",
        sync="tick",
        clock_synchronised=None,
        meters=[MeterInfo(name="outlet", kind="modbus", measures=NODE, interval_s=1.0)] if meter else [],
        actuators=[ActuatorInfo(name="board", kind="emulated", actions=list(actions), min_w=5.0, max_w=20.0)],
    )


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.start()
    bench.fleet.on_birth(NODE, birth())
    return bench


def limit(watts: float) -> Limit:
    return Limit(NODE, watts, reason="night")


async def test_a_demand_becomes_one_command_with_a_lease(bench: Bench) -> None:
    assert bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    (command,) = await bench.heard()
    assert command == row.command
    assert (command.action, command.limit_w, command.ttl_s, command.epoch) == (Action.LIMIT, 7.5, 60.0, 7)
    assert command.target.actuator == "board"
    assert (row.k, row.microgrid) == (3, "paper")
    assert bench.turn() == []


async def test_asking_for_the_same_again_changes_nothing(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    bench.turn()
    assert not bench.fleet.ask("night", "paper", limit(7.5))
    assert bench.turn() == []


async def test_the_strictest_source_wins_and_the_next_follows_its_release(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(10.0))
    bench.fleet.ask("storm", "paper", limit(7.5))
    (row,) = bench.turn()
    assert row.command.limit_w == 7.5
    bench.fleet.ask("storm", "paper", Release(NODE))
    (row,) = bench.turn()
    assert (row.command.action, row.command.limit_w) == (Action.LIMIT, 10.0)
    bench.fleet.ask("night", "paper", Release(NODE))
    (row,) = bench.turn()
    assert row.command.action is Action.RELEASE


async def test_a_lease_is_renewed_at_a_third_with_a_new_id_and_seq(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (first,) = bench.turn()
    bench.answer(first.command, AckState.APPLIED)
    await bench.clock.advance(19.9)
    assert bench.turn() == []
    await bench.clock.advance(0.2)
    (second,) = bench.turn()
    assert second.command.renews == first.command.id
    assert second.command.id != first.command.id
    assert second.command.seq > first.command.seq
    assert second.command.limit_w == 7.5


async def test_silence_is_answered_by_the_same_command_again(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    await bench.clock.advance(2.1)
    bench.fleet.repeat()
    assert [command.id for command in await bench.heard()] == [row.command.id, row.command.id]
    bench.answer(row.command, AckState.RECEIVED)
    await bench.clock.advance(2.1)
    bench.fleet.repeat()
    bench.agent.deliver("end", b"", retained=False)
    assert [message.topic for message in await bench.agent.receive()] == ["end"]


async def test_a_command_decided_without_a_broker_goes_out_when_it_is_back(bench: Bench) -> None:
    bench.bus.cut()
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.bus.reconnect()
    await bench.clock.advance(2.1)
    bench.fleet.repeat()
    (command,) = await bench.heard()
    assert command.id == row.command.id


async def test_latency_runs_from_publish_to_applied_and_is_told_once(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.answer(row.command, AckState.RECEIVED)
    await bench.clock.advance(0.25)
    bench.answer(row.command, AckState.APPLIED)
    bench.answer(row.command, AckState.APPLIED, Effect.VERIFIED)
    assert [ack.latency_ms for ack in bench.acks] == [None, pytest.approx(250.0), None]
    assert [effect.effect for effect in bench.effects] == [Effect.VERIFIED]


async def test_where_the_meter_is_elsewhere_the_coordinator_judges(bench: Bench) -> None:
    bench.fleet.on_birth(NODE, birth(meter=False))
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.answer(row.command, AckState.APPLIED)
    for _ in range(12):
        await bench.clock.advance(1.0)
        bench.fleet.on_sample(NODE, 15.0, Quality.GOOD)
    assert [(e.effect, e.measured_w) for e in bench.effects] == [(Effect.INEFFECTIVE, 15.0)]
    assert bench.notices[-1].kind == "limit-ineffective"


async def test_a_refusal_is_told_and_tried_again_later(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.answer(row.command, AckState.REJECTED, code="local_lock")
    assert bench.notices[-1].kind == "command-rejected"
    assert "local_lock" in bench.notices[-1].detail
    assert bench.turn() == []
    await bench.clock.advance(20.1)
    (again,) = bench.turn()
    assert again.command.id != row.command.id
    assert again.command.renews is None


async def test_an_expired_lease_is_taken_up_again(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.answer(row.command, AckState.APPLIED)
    bench.answer(row.command, AckState.EXPIRED)
    (again,) = bench.turn()
    assert again.command.limit_w == 7.5
    assert again.command.renews is None


async def test_a_stale_epoch_is_reported(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (row,) = bench.turn()
    bench.answer(row.command, AckState.REJECTED, code="stale_epoch")
    assert len(bench.stale) == 1


async def test_a_node_without_the_actuator_is_told_once_and_served_when_it_has_one(bench: Bench) -> None:
    bench.fleet.on_birth(NODE, birth(actions=()))
    bench.fleet.ask("night", "paper", limit(7.5))
    assert bench.turn() == []
    await bench.clock.advance(100.0)
    assert bench.turn() == []
    assert [notice.kind for notice in bench.notices] == ["command-waits"]
    bench.fleet.on_birth(NODE, birth())
    assert len(bench.turn()) == 1


async def test_a_node_in_its_failsafe_is_released_where_nothing_is_wanted_of_it(bench: Bench) -> None:
    assert bench.turn() == []
    bench.fleet.on_state(NODE, NodeState(state=Presence.READY, session=1, lease="failsafe"))
    (row,) = bench.turn()
    assert row.command.action is Action.RELEASE
    assert bench.turn() == []
    await bench.clock.advance(10.1)
    assert len(bench.turn()) == 1
    bench.fleet.on_state(NODE, NodeState(state=Presence.READY, session=1, lease="controlled"))
    await bench.clock.advance(10.1)
    assert bench.turn() == []


async def test_demands_survive_a_restart_and_are_commanded_under_the_new_epoch(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    bench.turn()
    later = Bench()
    await later.start()
    later.fleet.restore(bench.fleet.demands())
    later.fleet.on_birth(NODE, birth())
    (row,) = later.turn()
    assert (row.command.limit_w, row.command.seq) == (7.5, 1)


async def test_the_end_of_a_run_releases_and_waits_for_the_last_word(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (order,) = bench.turn()
    bench.answer(order.command, AckState.APPLIED)
    bench.fleet.release_all()
    (release,) = bench.turn()
    assert bench.fleet.unanswered == 2
    bench.answer(order.command, AckState.RELEASED)
    bench.answer(release.command, AckState.RELEASED)
    assert bench.fleet.unanswered == 0
    assert bench.turn() == []


async def sent_by(bench: Bench, seconds: float) -> list[str]:
    """The ids of the commands that ``repeat`` sends in the course of some seconds, looking twice a second."""
    for _ in range(round(2 * seconds)):
        await bench.clock.advance(0.5)
        bench.fleet.repeat()
    bench.agent.deliver("end", b"", retained=False)
    return [decode(message.payload, Command).id for message in await bench.agent.receive() if message.topic != "end"]


async def test_a_command_whose_end_was_not_heard_is_asked_after(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    (first,) = bench.turn()
    bench.answer(first.command, AckState.APPLIED)
    bench.fleet.ask("night", "paper", limit(6.0))
    (second,) = bench.turn()
    bench.answer(second.command, AckState.APPLIED)
    assert len(await bench.heard()) == 2
    assert await sent_by(bench, 1.5) == []
    assert await sent_by(bench, 9.0) == [first.command.id]
    assert await sent_by(bench, 10.0) == [first.command.id]  # patiently
    bench.answer(first.command, AckState.SUPERSEDED)
    assert await sent_by(bench, 20.0) == []


async def test_commands_of_an_earlier_life_are_followed_to_their_ends(
    bench: Bench,
) -> None:
    earlier = Bench(epoch=6)
    earlier.fleet.on_birth(NODE, birth())
    earlier.fleet.ask("night", "paper", limit(9.0))
    (old,) = earlier.turn()
    earlier.fleet.ask("night", "paper", limit(8.0))
    (older,) = earlier.turn()
    bench.fleet.restore(earlier.fleet.demands())
    bench.fleet.adopt([old, older])
    (row,) = bench.turn()
    bench.answer(row.command, AckState.RECEIVED)
    assert [command.id for command in await bench.heard()] == [row.command.id]
    assert await sent_by(bench, 3.0) == [old.command.id]
    bench.answer(old.command, AckState.SUPERSEDED)
    assert await sent_by(bench, 1.0) == [older.command.id]  # whoever answers is asked on at once
    bench.answer(older.command, AckState.REJECTED, code="stale_epoch")  # it never got there
    assert bench.stale == []
    assert bench.notices == []
    assert await sent_by(bench, 20.0) == []


async def test_a_limit_of_an_earlier_life_is_not_sent_to_an_agent_that_may_still_obey_it(bench: Bench) -> None:
    earlier = Bench(epoch=6)
    earlier.fleet.on_birth(NODE, birth())
    earlier.fleet.ask("night", "paper", limit(9.0))
    (old,) = earlier.turn()
    earlier.fleet.release_all()
    (release,) = earlier.turn()
    bench.fleet.adopt([old, release])
    assert await sent_by(bench, 1.0) == [release.command.id]
    bench.answer(release.command, AckState.RELEASED)
    assert await sent_by(bench, 58.0) == []
    assert await sent_by(bench, 2.0) == [old.command.id]  # its lease is over in any case


async def test_an_old_limit_is_not_asked_after_before_its_agent_knows_the_new_command(bench: Bench) -> None:
    bench.fleet.ask("night", "paper", limit(7.5))
    bench.turn()
    bench.fleet.ask("night", "paper", Release(NODE))
    (release,) = bench.turn()
    assert len(await bench.heard()) == 2
    assert set(await sent_by(bench, 30.0)) == {release.command.id}  # nobody is there
