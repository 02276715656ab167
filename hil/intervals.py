"""Which numbers of a stream have been received: a set of whole numbers, kept as few closed ranges.

Both ends of a stream count with it: what is there, how far it is there without a gap, and what is missing. A stream
that arrives in order is one range however long it grows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Intervals:
    """A set of numbers ≥ 1 as sorted, disjoint, closed ranges that do not touch."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """How many ranges, which is what the set costs."""
        return len(self._firsts)

    def __contains__(self, number: int) -> bool:
        index = bisect_left(self._lasts, number)
        return index < len(self._firsts) and self._firsts[index] <= number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Intervals):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Intervals({self.ranges!r})"

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The ranges, lowest first."""
        return tuple(self)

    @property
    def count(self) -> int:
        """How many numbers are in it."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def upto(self) -> int:
        """The largest n for which 1 to n are all there; 0 where 1 is missing."""
        return self._lasts[0] if self._firsts and self._firsts[0] == 1 else 0

    @property
    def have(self) -> tuple[Range, ...]:
        """The ranges above ``upto``."""
        ranges = self.ranges
        return ranges[1:] if self.upto else ranges

    def add(self, first: int, last: int) -> int:
        """Put in ``first`` to ``last``, ends included; how many of them are new. Raises ValueError on a bad range."""
        if not 1 <= first <= last:
            raise ValueError(f"not a range of numbers from 1 up: {first} to {last}")
        firsts, lasts = self._firsts, self._lasts
        # The ranges from left up to right overlap the new one or touch it; together they become one.
        left = bisect_left(lasts, first - 1)
        right = bisect_right(firsts, last + 1, lo=left)
        if left == right:
            firsts.insert(left, first)
            lasts.insert(left, last)
            return last - first + 1
        known = sum(min(lasts[i], last) - max(firsts[i], first) + 1 for i in range(left, right))
        firsts[left:right] = [min(first, firsts[left])]
        lasts[left:right] = [max(last, lasts[right - 1])]
        return last - first + 1 - known

    def merge(self, other: "Intervals") -> int:
        """Put in everything of ``other``; how many numbers are new."""
        return sum(self.add(first, last) for first, last in other)

    def gaps(self, first: int, last: int) -> list[Range]:
        """What of ``first`` to ``last`` is missing, as ranges, lowest first."""
        missing = []
        for index in range(bisect_left(self._lasts, first), len(self._firsts)):
            if self._firsts[index] > last:
                break
            if self._firsts[index] > first:
                missing.append((first, self._firsts[index] - 1))
            first = self._lasts[index] + 1
        if first <= last:
            missing.append((first, last))
        return missing

    def lacks(self, first: int, last: int) -> bool:
        """Whether nothing of ``first`` to ``last`` is there."""
        index = bisect_left(self._lasts, first)
        return index == len(self._firsts) or self._firsts[index] > last

    def encode(self) -> bytes:
        """The set as bytes: for each range its distance from the one before and its length, as LEB128 numbers."""
        encoded = bytearray()
        end = 0
        for first, last in self:
            _put(encoded, first - end)
            _put(encoded, last - first)
            end = last
        return bytes(encoded)

    @classmethod
    def decode(cls, encoded: bytes) -> "Intervals":
        """The set that ``encode`` wrote. Raises ValueError on anything else."""
        numbers = list(_numbers(encoded))
        if len(numbers) % 2:
            raise ValueError("not an encoded set of ranges: a length is missing")
        intervals = cls()
        end = 0
        for distance, length in zip(numbers[::2], numbers[1::2], strict=True):
            intervals.add(end + distance, end + distance + length)
            end += distance + length
        return intervals


def _put(encoded: bytearray, number: int) -> None:
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)


def _numbers(encoded: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in encoded:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("not an encoded set of ranges: the last number is cut short")
