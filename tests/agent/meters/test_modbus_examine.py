"""What a device says of itself, and what comes of it: questions, nameplates, chains of SunSpec models."""

from collections.abc import Mapping, Sequence

import pytest

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import ILLEGAL_ADDRESS, NO_ANSWER, BusError, Refused, Silent, WrongDevice
from agent.meters.modbus.examine import Examination, SunSpecExamination
from agent.meters.modbus.frames import checksum
from agent.meters.modbus.nameplate import Nameplate, NameplateConfig, NameplateHunt
from agent.meters.modbus.probe import Probe, ProbeConfig, probe
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register
from agent.meters.modbus.sunspec import Model, ModelTable, SunSpecConfig, choose, walk
from agent.meters.modbus.table import Defaults, RegisterConfig, RegisterTable

REGISTER = Register(Quantity.POWER_W, 3, 0, "u16")


class Device:
    """Has some words of function 3, and a nameplate; the rest it refuses as told."""

    def __init__(
        self, words: Mapping[int, int], refusal: BusError | None = None, plate: Nameplate | None = None
    ) -> None:
        self._words = words
        self._refusal = refusal or Refused(ILLEGAL_ADDRESS, "that")
        self._plate = plate
        self.asked = 0

    async def read(self, block: Block) -> Sequence[int]:
        self.asked += 1
        try:
            return [self._words[at] for at in range(block.address, block.address + block.count)]
        except KeyError:
            raise self._refusal from None

    async def describe(self) -> Nameplate:
        if self._plate is None:
            raise self._refusal
        return self._plate


def question(**config: object) -> Probe:
    return probe(ProbeConfig(**{"address": 0, **config}), Defaults())  # type: ignore[arg-type]


def spelt(text: str, words: int) -> list[int]:
    content = text.encode().ljust(2 * words, b"\0")
    return [int.from_bytes(content[n : n + 2], "big") for n in range(0, 2 * words, 2)]


# Questions


def test_numbers_are_right_wrong_or_unknown():
    strict = question(expect=(7,))
    assert (strict.recognises(7), strict.objection(7)) == (True, "")
    assert strict.objection(10) == "register 0x0000, function 3 says 10 (0xA), expected 7"
    lenient = question(expect=(7,), refuse=(8,), because="it is another model")
    assert (lenient.recognises(9), lenient.objection(9)) == (False, "")
    assert lenient.objection(8) == "register 0x0000, function 3 says 8, expected 7: it is another model"


def test_one_that_only_refuses_recognises_nothing():
    wary = question(refuse=(8,))
    assert (wary.recognises(7), wary.objection(7)) == (False, "")
    assert wary.objection(8) == "register 0x0000, function 3 says 8"


def test_texts_are_told_by_their_beginning():
    asking = question(type="string", words=4, expect=("B23", "B24"), refuse=("B21",))
    assert asking.answer(spelt("B23 112", 4)) == "B23 112"
    assert asking.recognises("b24 100")
    assert asking.objection("B21 100") == "register 0x0000, function 3 says 'B21 100', expected 'B23' or 'B24'"


def test_texts_may_have_their_low_byte_first():
    asking = question(type="string", words=8, byte_order="little", expect=("S3EM",))
    # a real 3EM-63 Gen3, in the tests of github.com/sphings79/shelly-modbus-home-assistant
    assert asking.answer([13139, 19781, 12333, 13104, 22595, 17731, 13909, 51]) == "S3EM-003CXCEU63"


def test_texts_ignore_the_word_order_of_the_numbers_beside_them():
    asking = probe(ProbeConfig(address=0, type="string", words=2, expect=("ABCD",)), Defaults(word_order="little"))
    assert asking.answer([0x4142, 0x4344]) == "ABCD"


def test_numbers_may_be_wide_signed_or_a_few_bits():
    assert question(type="u32", expect=(0x42323320,)).answer([0x4232, 0x3320]) == 0x42323320
    assert question(type="i16", expect=(-1,)).answer([0xFFFF]) == -1
    assert question(type="bits", bits=(8, 11), expect=(2,)).answer([0x1234]) == 2


# Examinations


def examination(**rest: object) -> Examination:
    parts: dict[str, object] = {"nameplate": None, "identity": (), "requirements": (), "registers": (REGISTER,)}
    return Examination(profile="mine", **(parts | rest))  # type: ignore[arg-type]


async def test_the_right_device_is_read():
    asking = examination(identity=(question(expect=(7,)),), requirements=(question(address=1, expect=(3,)),))
    assert await asking(Device({0: 7, 1: 3})) == (REGISTER,)


@pytest.mark.parametrize(("words", "why"), [({0: 8, 1: 3}, "not a mine"), ({0: 7, 1: 4}, "not set up for mine")])
async def test_the_wrong_one_is_not(words: dict[int, int], why: str):
    asking = examination(identity=(question(expect=(7,)),), requirements=(question(address=1, expect=(3,)),))
    with pytest.raises(WrongDevice, match=f"{why}: register 0x000"):
        await asking(Device(words))


@pytest.mark.parametrize("refusal", [Refused(ILLEGAL_ADDRESS, "that"), Refused(1, "that"), Silent("nothing")])
async def test_one_that_does_not_know_the_question_gets_the_benefit_of_the_doubt(refusal: BusError):
    asking = examination(nameplate=NameplateConfig(vendor=("Raritan",)), identity=(question(expect=(7,)),))
    assert await asking(Device({}, refusal)) == (REGISTER,)


@pytest.mark.parametrize("refusal", [Refused(NO_ANSWER, "that"), BusError("no connection")])
async def test_one_that_is_not_there_does_not(refusal: BusError):
    for asking in (examination(nameplate=NameplateConfig()), examination(identity=(question(expect=(7,)),))):
        with pytest.raises(BusError):
            await asking(Device({}, refusal))


async def test_a_nameplate_of_another_vendor_is_an_objection_and_an_empty_one_is_none():
    asking = examination(nameplate=NameplateConfig(vendor=("Raritan", "Legrand"), product=("PX3",)))
    assert asking.nameplate is not None
    assert asking.nameplate.recognises(Nameplate("Raritan", "PX3-5190"))
    assert not asking.nameplate.recognises(Nameplate("Raritan", "PX9"))
    assert not asking.nameplate.recognises(Nameplate("APC", "PX3"))
    assert await asking(Device({}, plate=Nameplate("raritan inc.", "PX9"))) == (REGISTER,)
    assert await asking(Device({}, plate=Nameplate())) == (REGISTER,)
    with pytest.raises(WrongDevice, match="not a mine: its vendor is 'APC', expected 'Raritan' or 'Legrand'"):
        await asking(Device({}, plate=Nameplate("APC")))


# Nameplates on a serial line: the frame of Modbus Application Protocol V1.1b3, 6.21, worked out by hand

ANSWER = bytes.fromhex("05 2B 0E 01 01 00 00 03 00 07") + b"Raritan" + b"\x01\x03PX3" + b"\x02\x053.6.1"
FRAME = ANSWER + checksum(ANSWER)


def test_the_request_is_that_of_the_standard():
    assert NameplateHunt(5).request[:-2] == bytes.fromhex("05 2B 0E 01 00")


@pytest.mark.parametrize("before", [b"", NameplateHunt(5).request, b"\x00\xff"])
def test_an_answer_is_found_whatever_came_before(before: bytes):
    hunt = NameplateHunt(5)
    received = before + FRAME
    assert [hunt.look(received[:end]) for end in range(len(received))] == [None] * len(received)
    found = hunt.look(received)
    assert found == Nameplate("Raritan", "PX3", "3.6.1")
    assert str(found) == "Raritan PX3 3.6.1"


def test_a_damaged_answer_is_none():
    for at in range(len(FRAME)):
        damaged = bytearray(FRAME)
        damaged[at] ^= 0x10
        assert NameplateHunt(5).look(bytes(damaged)) is None


def test_a_refusal_is_told():
    content = bytes((5, 0xAB, 1))
    with pytest.raises(Refused, match="illegal function"):
        NameplateHunt(5).look(content + checksum(content))


# SunSpec


def chain(*models: tuple[int, int], base: int = 40000) -> dict[int, int]:
    words = {base: 0x5375, base + 1: 0x6E53}
    at = base + 2
    for number, length in (*models, (0xFFFF, 0)):
        words |= {at: number, at + 1: length} | dict.fromkeys(range(at + 2, at + 2 + length), 0)
        at += 2 + length
    return words


@pytest.mark.parametrize("base", [40000, 0, 50000])
async def test_the_chain_is_found_at_any_of_its_places(base: int):
    models = await walk(Device(chain((1, 66), (203, 105), base=base)), (40000, 0, 50000))
    assert models == (Model(1, base + 2, 66), Model(203, base + 70, 105))


async def test_where_none_begins_there_is_no_sunspec():
    with pytest.raises(WrongDevice, match="nothing begins at 40000 or 0"):
        await walk(Device({0: 1, 1: 2}), (40000, 0))


async def test_a_device_that_is_not_there_is_no_wrong_one():
    with pytest.raises(Silent):
        await walk(Device({}, Silent("nothing")), (40000, 0))


async def test_a_chain_without_an_end_ends():
    words = chain((1, 66), (203, 105))
    broken = {at: word for at, word in words.items() if at < 40177}
    assert len(await walk(Device(broken), (40000,))) == 2
    endless = dict.fromkeys(range(0x10000), 0) | {40000: 0x5375, 40001: 0x6E53}
    assert len(await walk(Device(endless), (40000,))) == 100
    beyond = chain((1, 66)) | {40070: 203, 40071: 60000}
    assert await walk(Device(beyond), (40000,)) == (Model(1, 40002, 66),)


TABLE = RegisterTable(
    power_w=RegisterConfig(address=18, type="i16", scale_register=22),
    energy_j=RegisterConfig(address=46, type="u32", scale_register=54),
)
CONFIG = SunSpecConfig(tables=(ModelTable(models=(203, 204), registers=TABLE),))


async def test_registers_lie_where_the_model_does():
    words = chain((1, 66), (103, 50), (203, 105), (203, 105))
    for nth, address in ((1, 40122), (2, 40229)):
        power, energy = await SunSpecExamination(CONFIG, Defaults(), nth)(Device(words))
        assert (power.address, energy.address) == (address + 18, address + 46)
        assert power.scale is not None
        assert power.scale.address == address + 22


async def test_a_short_model_lacks_its_last_registers():
    registers = await SunSpecExamination(CONFIG, Defaults())(Device(chain((203, 52))))
    assert [register.quantity for register in registers] == [Quantity.POWER_W]  # the scale of the energy is beyond it


@pytest.mark.parametrize(
    ("nth", "complaint"),
    [(1, "its SunSpec models are 1, 103; expected one of 203, 204"), (2, "expected 2 of 203, 204")],
)
def test_a_device_without_the_model_says_what_it_has(nth: int, complaint: str):
    with pytest.raises(WrongDevice, match=complaint):
        choose(CONFIG, (Model(1, 0, 66), Model(103, 70, 50)), nth)
