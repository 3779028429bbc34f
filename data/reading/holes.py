"""Whether the parts of a container follow each other: where bytes were lost, demuxers go on without a word.

Known are Matroska and WebM (elements) and MPEG program streams (packets). Of what lies within a part, nothing is known.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from .endings import EBML, PACK, PROGRAM_END, vint
from .packed import VideoFile

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_TOP = frozenset({0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367})
"""Elements of a segment: positions, facts, tracks, cues, attachments, chapters and tags."""
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF})
"""Elements of a cluster: its time, blocks and the like; empty space and checksums are everywhere."""
_KNOWN = {int.from_bytes(EBML, "big"), _SEGMENT, _CLUSTER} | _TOP | _IN_CLUSTER
_WIDEST_ID = 4
_ELEMENT_BYTES = 12
_ZEROS = 1 << 16
"""Bytes that are looked at to see whether only zeros follow."""


def hole_in(path: VideoFile) -> str | None:
    """Return a clause with the first place at which a file does not go on as it says, or None if it does."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(4)
        at: int | None = None
        if head.startswith(EBML):
            at = _element_hole(file, size)
        elif head.startswith(PACK):
            at = _packet_hole(file, size)
    return None if at is None else f"it is damaged at byte {at}: no part of the file begins there"


def _element_hole(file: BinaryIO, size: int) -> int | None:
    at, end = 0, size
    while at < end:
        element, begin, length = _element_at(file, at)
        after = begin + (length or 0)
        if element not in _KNOWN and not (length is not None and _is_of_later_standard(file, element, after, end)):
            is_filled = element == 0 and end == size  # some writers fill up the end with zeros
            return None if is_filled and _is_zero(file, at) else at
        # Clusters and the segment are entered, so that it does not matter whether they know their size.
        at = begin if element in (_SEGMENT, _CLUSTER) else after
        if element == _SEGMENT and length is not None:
            end = min(size, after)  # what follows is no part of it
    return None


def _is_of_later_standard(file: BinaryIO, element: int, after: int, end: int) -> bool:
    """Return whether an element may be one that a later standard adds: a known one follows it, or the end.

    A new one has a longer id: those of one byte are few (RFC 9559) and known here. Another is a byte of something else,
    which is noticed even where an element happens to begin behind it.
    """
    return element > 0xFF and (after == end or _element_at(file, after)[0] in _KNOWN)


def _element_at(file: BinaryIO, at: int) -> tuple[int, int, int | None]:
    """Return the id of the element at a place (0 where there can be none), where its content begins, and its length."""
    file.seek(at)
    head = file.read(_ELEMENT_BYTES)
    width = 9 - head[0].bit_length() if head else 9
    if width > _WIDEST_ID:
        return 0, at, None
    length, length_width = vint(head, width)
    return int.from_bytes(head[:width], "big"), at + width + length_width, length


def _is_zero(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    return not file.read(_ZEROS).strip(b"\0")


def _packet_hole(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(14)
        if len(head) < 14:
            return None
        if head[:3] != b"\0\0\1" or head[3] < PROGRAM_END:
            return None if _is_zero(file, at) else at  # some writers fill up the end with zeros
        if head[3] == PROGRAM_END:
            at += 4
        elif head[3] == PACK[3]:
            at += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
        else:
            at += 6 + int.from_bytes(head[4:6], "big")
    return None
