from pathlib import Path

from hil.emulated.ready import Place, Ready, read_ready, write_ready

READY = Ready(
    pid=1,
    control=Place(host="127.0.0.1", port=5021),
    pdus={"pdu-1": Place(host="127.0.0.1", port=5020, unit=1)},
    journals={"jetson-1": "/run/jetson-1.csv"},
)


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "ready.json"
    assert read_ready(path) is None
    write_ready(path, READY)
    assert read_ready(path) == READY
    assert list(tmp_path.iterdir()) == [path]
