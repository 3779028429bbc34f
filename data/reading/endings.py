"""Where a container says that its file ends, from its own lengths: a file that ends earlier was cut.

Known are AVI (RIFF), Matroska and WebM (EBML), MPEG program streams and transport streams. A transport stream that was
cut between two of its packets, and a program stream cut between two packets, do not show it.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from .packed import VideoFile

_UNKNOWN_RIFF = frozenset({0, 0xFFFFFFFF})
"""Sizes in AVI files whose writer could not go back to the header, such as a pipe."""
EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
PACK = b"\0\0\1\xba"
PROGRAM_END = 0xB9
_TS_SYNC = 0x47
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Bytes of a packet, and those before its sync byte: plain, with time codes (`.m2ts`), with error correction."""


def cut_short(path: VideoFile) -> str | None:
    """Return a clause with the number of bytes that a file lacks at its end, or None if it shows none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(1024)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            lacking = _riff_end(head) - size
        elif head.startswith(EBML):
            lacking = _segment_end(head) - size
        elif head.startswith(PACK):
            lacking = _program_end(file, size) - size
        else:
            lacking = _transport_end(head, size) - size
    if lacking <= 0:
        return None
    return f"the file ends {lacking} byte{'s' if lacking > 1 else ''} early"


def _riff_end(head: bytes) -> int:
    claimed = int(struct.unpack("<I", head[4:8])[0])
    return 0 if claimed in _UNKNOWN_RIFF else claimed + 8


def _segment_end(head: bytes) -> int:
    """Return where the segment of a Matroska file ends; 0 if it does not say, as in a live recording."""
    at = 4
    header, width = vint(head, at)
    at += width + (header or 0)
    if head[at : at + 4] != _SEGMENT:
        return 0
    size, width = vint(head, at + 4)
    return 0 if size is None else at + 4 + width + size


def vint(head: bytes, at: int) -> tuple[int | None, int]:
    """Return the EBML number at a place (RFC 8794, section 4) and its width; None if all its bits are set."""
    first = head[at] if at < len(head) else 0
    if first == 0:
        return None, 1
    width = 9 - first.bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


def _program_end(file: BinaryIO, size: int) -> int:
    """Return where the last packet of a program stream ends, following the lengths from the first."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(14)
        if len(head) < 6:
            return at + 6
        if head[:3] != b"\0\0\1" or head[3] < PROGRAM_END:
            return 0  # damaged here: the decoder will say so
        if head[3] == PROGRAM_END:
            return 0
        if head[3] == PACK[3]:
            is_mpeg2 = head[4] >> 6 == 1
            at += 14 + (head[13] & 7) if is_mpeg2 and len(head) == 14 else 12
        else:
            at += 6 + int.from_bytes(head[4:6], "big")
    return at


def _transport_end(head: bytes, size: int) -> int:
    for width, before in _TS_PACKETS:
        marks = head[before::width]
        if len(marks) > 2 and all(mark == _TS_SYNC for mark in marks):
            return -(-size // width) * width
    return 0
