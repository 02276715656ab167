"""What is said on the control socket of the emulated world: one JSON object a line, one answer a request.

==========  ================================  ======================================================================
``op``      fields                            effect
==========  ================================  ======================================================================
get         node                              none; every answer about a node carries its state
set_cap     node, cap_w (null: none)          caps the node's power, in W
plug        node                              the cap has an effect (as from the start)
unplug      node                              caps are taken and read back, and have none
fault       pdu, fault (null: none)           silent | exception | nan | garbage | damaged, for a whole unit
delay       pdu, delay_s                      the unit answers so much later
reset       rapl                              its energy counters start anew at 0
override    pdu, outlet, quantity, value      a register shows ``value`` whatever the node does (null: the node)
==========  ================================  ======================================================================
"""

from typing import Annotated, Final

import msgspec

from hil.emulated.electrical import Quantity
from hil.emulated.modbusunit import Fault
from hil.wire import Name

MAX_LINE: Final = 4096

Cap = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Shown = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class MessageError(ValueError):
    """A line that is no request, or no answer; says why."""


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=True):
    """Base of all requests."""


class Get(_Request, frozen=True, kw_only=True, tag="get"):
    """Ask for a node's state."""

    node: Name


class SetCap(_Request, frozen=True, kw_only=True, tag="set_cap"):
    """Cap a node's power in W; None lifts the cap."""

    node: Name
    cap_w: Cap | None


class Plug(_Request, frozen=True, kw_only=True, tag="plug"):
    """Give a node's cap its effect."""

    node: Name


class Unplug(_Request, frozen=True, kw_only=True, tag="unplug"):
    """Take its effect from a node's cap."""

    node: Name


class SetFault(_Request, frozen=True, kw_only=True, tag="fault"):
    """Put a fault on a unit, or take it away."""

    pdu: Name
    fault: Fault | None


class Reset(_Request, frozen=True, kw_only=True, tag="reset"):
    """Let the energy counters of a RAPL tree start anew, as after a loss of power."""

    rapl: Name


class Delay(_Request, frozen=True, kw_only=True, tag="delay"):
    """Let a unit answer later than it would, in s."""

    pdu: Name
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=60)]


class Override(_Request, frozen=True, kw_only=True, tag="override"):
    """Fix what an outlet's register shows, or free it."""

    pdu: Name
    outlet: Annotated[int, msgspec.Meta(ge=1)]
    quantity: Quantity
    value: Shown | None

    def __post_init__(self) -> None:
        if self.quantity is Quantity.ENERGY_J and self.value is not None and self.value < 0:
            raise ValueError("the energy register holds no negative value")


Request = Get | SetCap | Plug | Unplug | SetFault | Delay | Reset | Override


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node as it is now."""

    power_w: float
    energy_j: float
    cap_w: float | None
    plugged: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a request: ``error`` says why it was not done; ``node`` is the state after it."""

    error: str | None = None
    node: NodeState | None = None


_requests: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_answers: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


def encode(message: Request | Answer) -> bytes:
    """The message as a line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """The request in a line. Raises MessageError."""
    try:
        return _requests.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a request: {error}") from error


def decode_answer(line: bytes) -> Answer:
    """The answer in a line. Raises MessageError."""
    try:
        return _answers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not an answer: {error}") from error
