"""A log in parts: every byte once, whole lines, the end alone of a long one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hpo.protocol import LOG_KEPT_BYTES, LOG_PART_BYTES, Fence, LogRequest
from workers.lease.attempt_log import AttemptLog

from .fakes import LEASE_ID

FENCE = Fence(attempt=2, lease_id=LEASE_ID)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def _all(log: AttemptLog) -> list[tuple[int, int, str]]:
    """Return all parts that there are now, each accepted."""
    parts = []
    while (part := log.next_part(FENCE)) is not None:
        parts.append((part.start, part.stop, part.text))
        log.accepted()
    return parts


def test_what_is_new_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AttemptLog(path)
    missing = _all(log)
    _append(path, b"one\n")
    first = log.next_part(FENCE)
    log.accepted()
    nothing = log.next_part(FENCE)
    _append(path, "zwölf".encode())
    assert (missing, nothing) == ([], None)
    assert first == LogRequest(attempt=2, lease_id=LEASE_ID, start=0, stop=4, text="one\n")
    assert _all(log) == [(4, 10, "zwölf")]


def test_a_part_that_was_not_accepted_comes_again_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AttemptLog(path)
    _append(path, b"one\n")
    first = log.next_part(FENCE)
    _append(path, b"two\n")
    again = log.next_part(FENCE)
    assert first == again
    assert _all(log) == [(0, 4, "one\n"), (4, 8, "two\n")]


def test_parts_are_of_whole_lines_unless_a_line_is_longer(tmp_path: Path) -> None:
    lines, endless = tmp_path / "lines", tmp_path / "endless"
    _append(lines, b"0123456789abcde\n" * 3 + "ä".encode() * (LOG_PART_BYTES // 2) + b"\n")
    _append(endless, b"x" * (LOG_PART_BYTES + 5))
    parts = _all(AttemptLog(lines))
    ends = [0, 48, 48 + LOG_PART_BYTES, 49 + LOG_PART_BYTES]
    assert [(start, stop) for start, stop, _ in parts] == list(pairwise(ends))
    assert "\ufffd" not in "".join(text for _, _, text in parts)
    assert [stop - start for start, stop, _ in _all(AttemptLog(endless))] == [LOG_PART_BYTES, 5]


def test_of_a_long_log_the_end_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _append(path, b"old\n" * 1000 + b"new\n" * (LOG_KEPT_BYTES // 4))
    parts = _all(AttemptLog(path))
    assert (parts[0][0], parts[-1][1]) == (4000, 4000 + LOG_KEPT_BYTES)
    assert "".join(text for _, _, text in parts) == "new\n" * (LOG_KEPT_BYTES // 4)


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _append(path, b"a\xff\0b\n")
    assert _all(AttemptLog(path)) == [(0, 5, "a\ufffd?b\n")]
