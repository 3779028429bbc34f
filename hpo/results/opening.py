"""An opening of a sealed test list: who scored what on it, when, and what was found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field

from ..protocol import Message

SCORE_ENTRIES: Final = 100
Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
ScoreValue = (
    bool
    | Annotated[int, Field(ge=-(2**53), le=2**53)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=200)]
    | Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=SCORE_ENTRIES)]
    | None
)
Score = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], ScoreValue],
    Field(max_length=SCORE_ENTRIES),
]


def _utc(at: datetime) -> datetime:
    """Return a time in the zone that every database takes."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{at} is before or after all times that can be kept") from None


class Opening(Message):
    """`POST /v1/openings`: a test list was opened, or what the opening with this id has found."""

    id: UUID
    """Chosen by whoever opens it: a repeat is the same opening."""
    test_list: Digest
    """Identity of the list: of its split, and the ids and classes of its videos."""
    split: Annotated[int, Field(ge=1, le=2**31 - 1)]
    dataset_version: Annotated[str, Field(min_length=1, max_length=200)]
    opened_at: Annotated[AwareDatetime, AfterValidator(_utc)]
    videos: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    checkpoint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the file that was scored; None where a release up to 0.2.0 recorded the opening."""
    host: Annotated[str, Field(max_length=255)] = ""
    score: Score | None = None
    """None until the scoring is done."""

    def sentence(self) -> str:
        """Return when and why it was opened, and what was found."""
        found = "" if self.score is None or "top1" not in self.score else f": top-1 {self.score['top1']:.3f}"
        where = f" on {self.host}" if self.host else ""
        return f"{self.opened_at.astimezone():%Y-%m-%d %H:%M}{where}, {self.reason}{found}"
