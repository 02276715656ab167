"""Small files that must survive a power cut whole: the old text or the new one, nothing between."""

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Replace the file's text, on disk when this returns. Blocks for two fsyncs. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
