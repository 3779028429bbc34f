"""Which videos of a batch one of several processes takes that train on it together."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """The share `number` (from 0) of each batch `of` so many."""

    number: int
    of: int

    def places(self, videos: int) -> list[int]:
        """Return the places in a batch of `videos`, in order; all shares together are each place once.

        Sizes differ by one at most. A batch is dealt from both ends: clips are mixed with those as far from the other
        end, so that partners are mostly in one share.
        """
        ends = [place for pair in zip(range(videos), reversed(range(videos)), strict=True) for place in pair]
        dealt = list(dict.fromkeys(ends))
        return sorted(dealt[videos * self.number // self.of : videos * (self.number + 1) // self.of])

    def parts(self, videos: int, most: int) -> int:
        """Return in how many parts of `most` videos or fewer each share of a batch is computed: all in as many.

        Where shares differ in size, the smaller ones have a video for each part, and a larger one a part of one more.
        """
        return max(1, min(math.ceil(math.ceil(videos / self.of) / most), videos // self.of))
