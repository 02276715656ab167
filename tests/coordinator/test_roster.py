from coordinator.roster import Roster
from hil.wire import Birth, MeterInfo, NodeState, Presence


def birth(node, *measures, stream="0123abcd"):
    meters = [MeterInfo(name=f"m{i}", kind="modbus", measures=name, interval_s=1.0) for i, name in enumerate(measures)]
    return Birth(
        node=node,
        version="0",
        boot_id="b",
        stream=stream,
        epoch=0,
        mode="observe",
        nameplate_w=None,
        failsafe="release",
        sync="tick",
        clock_synchronised=None,
        meters=meters,
    )


def state(presence, session, stream="0123abcd", **books):
    return NodeState(state=presence, session=session, stream=stream, **books)


def names(meters):
    return [(agent, meter.name) for agent, meter in meters]


def test_meters_come_in_the_order_of_birth_and_announcement():
    roster = Roster(["jetson-1", "jetson-2"])
    roster.on_birth(birth("gateway", "jetson-2", "jetson-1", "jetson-2"))
    roster.on_birth(birth("jetson-2", "jetson-2"))
    roster.on_birth(birth("gateway", "jetson-2", "jetson-1", "jetson-2"))  # again, after a reconnect
    assert names(roster.meters_of("jetson-2")) == [("gateway", "m0"), ("gateway", "m2"), ("jetson-2", "m0")]
    assert names(roster.meters_of("jetson-1")) == [("gateway", "m1")]
    assert roster.meters_of("jetson-3") == []


def test_a_stranger_is_heard_only_while_it_measures_one_of_ours():
    roster = Roster(["jetson-1"])
    assert not roster.on_birth(birth("server-9", "server-9"))
    assert roster.agent("server-9") is None
    assert roster.on_birth(birth("gateway", "jetson-1"))
    assert roster.agent("gateway") is not None
    assert not roster.on_birth(birth("gateway", "server-9"))
    assert roster.agent("gateway") is None
    assert roster.meters_of("jetson-1") == []
    assert [agent.name for agent in roster] == ["jetson-1"]


def test_an_older_session_is_ignored():
    roster = Roster(["jetson-1"])
    agent = roster.agent("jetson-1")
    assert roster.on_state(agent, state(Presence.READY, 7)) is not None
    assert roster.on_state(agent, state(Presence.LOST, 6)) is None
    assert agent.state.state is Presence.READY
    assert roster.on_state(agent, state(Presence.LOST, 7)).state is Presence.LOST


def test_a_new_spool_counts_its_sessions_anew():
    roster = Roster(["jetson-1"])
    agent = roster.agent("jetson-1")
    roster.on_state(agent, state(Presence.READY, 70))
    assert roster.on_state(agent, state(Presence.LOST, 69, stream="")) is None
    assert roster.on_state(agent, state(Presence.READY, 1, stream="ffffffff")) is not None
    assert agent.state.session == 1


def test_a_will_does_not_wipe_the_books():
    roster = Roster(["jetson-1"])
    agent = roster.agent("jetson-1")
    roster.on_state(agent, state(Presence.READY, 7, generated=100, acked=90, spooled=10))
    lost = roster.on_state(agent, state(Presence.LOST, 7, stream=""))
    assert (lost.state, lost.generated, lost.acked, lost.spooled) == (Presence.LOST, 100, 90, 10)
    assert lost.stream == "0123abcd"
