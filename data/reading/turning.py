"""Turning frames as their display matrix says: telephones store upright videos lying on their side."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from ..arrays import ByteArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One of the eight ways of laying a rectangle: first the axes are exchanged, then rows and columns reversed."""

    swap: bool = False
    mirror: bool = False
    """Left becomes right."""
    flip: bool = False
    """Top becomes bottom."""

    @classmethod
    def of(cls, frame: VideoFrame) -> Turn:
        """Return how a frame must be turned to be shown; other angles than right ones count as the nearest.

        A pixel at (x, y) is shown at (a x + c y, b x + d y), where the matrix begins with a, b, u, c, d (ISO
        14496-12, 6.2.2).
        """
        from av.sidedata.sidedata import Type  # what reads prepared frames needs no PyAV

        try:
            stored = bytes(cast("Any", frame.side_data)[Type.DISPLAYMATRIX])
        except KeyError:
            return UPRIGHT
        a, b, _, c, d = struct.unpack_from("=5i", stored)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(mirror=a < 0, flip=d < 0)
        return cls(swap=True, mirror=c < 0, flip=b < 0)

    @property
    def name(self) -> str:
        """Short text that distinguishes the turns; empty for an upright frame."""
        parts = (("swap", self.swap), ("mirror", self.mirror), ("flip", self.flip))
        return "+".join(name for name, is_on in parts if is_on)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the turn."""
        return (height, width) if self.swap else (width, height)

    def apply(self, picture: ByteArray) -> ByteArray:
        """Return a picture (H, W, ...) as it is shown."""
        if self.swap:
            picture = picture.swapaxes(0, 1)
        if self.mirror:
            picture = picture[:, ::-1]
        return picture[::-1] if self.flip else picture


UPRIGHT = Turn()
