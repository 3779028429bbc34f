"""What every cache of prepared frames offers, whatever form the frames are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class FrameStore(Protocol):
    """Random access to the prepared frames of every clip; cheap to open, safe to pickle and to share over a fork."""

    @property
    def channels(self) -> int:
        """3 for RGB; 2 for flow: x and y, as `round((pixels / bound + 1) * 127.5)`."""
        ...

    def shape(self, id_: str) -> tuple[int, int, int]:
        """Return (frames, height, width) of a clip; of flow, one frame fewer than of RGB.

        Raises:
            CacheError: the store holds no such clip.
        """
        ...

    def read_into(self, id_: str, indices: NDArray[np.intp], box: Box, target: NDArray[np.uint8]) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, channels).

        Raises:
            CacheError: the store holds no such clip, or is damaged.
        """
        ...

    def __contains__(self, id_: object) -> bool: ...

    def __len__(self) -> int: ...
