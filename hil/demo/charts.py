"""Small charts of block characters for a terminal."""

from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"


def chart(
    values: Sequence[float | None],
    *,
    width: int = 72,
    height: int = 4,
    low: float | None = None,
    high: float | None = None,
) -> list[str]:
    """``values`` as ``height`` lines of at most ``width`` columns, top line first; unknown values stay blank.

    The scale runs from ``low`` to ``high``, by default from the smallest to the largest value, 0 included.
    """
    columns = shrink(values, width)
    known = [value for value in columns if value is not None]
    if not known:
        return [" " * len(columns)] * height
    bottom = min(0.0, *known) if low is None else low
    top = max(0.0, *known) if high is None else high
    span = top - bottom or 1.0
    eighths = [None if value is None else (value - bottom) / span * height * 8 for value in columns]
    return ["".join(_cell(filled, row) for filled in eighths) for row in range(height - 1, -1, -1)]


def shrink(values: Sequence[float | None], width: int) -> list[float | None]:
    """``values`` in at most ``width`` columns, each the mean of the known values that fall into it."""
    if len(values) <= width:
        return list(values)
    columns: list[float | None] = []
    for column in range(width):
        part = values[column * len(values) // width : (column + 1) * len(values) // width]
        known = [value for value in part if value is not None]
        columns.append(sum(known) / len(known) if known else None)
    return columns


def _cell(filled: float | None, row: int) -> str:
    if filled is None:
        return " "
    level = round(filled - row * 8)
    if row == 0:  # a value at the bottom of the scale is still a value
        level = max(1, level)
    return BLOCKS[max(0, min(8, level))]
