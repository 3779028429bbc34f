"""Who has opened a sealed test list before, and writing down that it is opened: in the cache, and by the service.

The cache of the data directory has a record of its own, `unsealed.jsonl`, which needs no service. Where a service
answers, it is asked too, and is sent what only the cache knows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    AuthenticationError,
    ConflictError,
    HpoError,
    NotFoundError,
    PermissionDeniedError,
    StoreUnavailableError,
)
from ..settings import Settings
from .app import err
from .studies import client_of

if TYPE_CHECKING:
    from data import Dataset

    from ..results.opening import Opening

_SHOWN: Final = 5
_PATIENCE_SECONDS: Final = 60.0
"""For how long a service that is away is sent a score again."""
_EARLIER_RELEASE: Final = uuid.UUID("5a3c1f43-7f4e-4a0e-9a76-2f7b0f1b4c11")
"""Names the openings that releases up to 0.2.0 recorded without an id."""


class Seal:
    """The seal of the test list of one split of one data set."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self._dataset = dataset
        self._settings = settings
        self._served = True
        self._earlier: list[Opening] | None = None

    def earlier(self) -> list[Opening]:
        """Return all known openings of the list, the oldest first; says on standard error if no service was asked."""
        if self._earlier is None:
            lines = self._dataset.earlier_openings()
            certain = [*self._local(line for line in lines if not line.get("perhaps"))]
            perhaps = [*self._local(line for line in lines if line.get("perhaps"))]
            found = {opening.id: opening for opening in (*certain, *perhaps)}
            for opening in self._exchange(certain):
                if opening.score is not None or opening.id not in found:
                    found[opening.id] = opening
            self._earlier = sorted(found.values(), key=lambda opening: opening.opened_at)
        return self._earlier

    def require_whole(self, checkpoint: str) -> None:
        """Check that nobody has seen a score on this list yet.

        An opening for the same checkpoint that found no score was interrupted, and may be repeated.

        Raises:
            ConflictError: somebody has; names the openings.
        """
        seen = [one for one in self.earlier() if one.score is not None or one.checkpoint != checkpoint]
        if seen:
            raise ConflictError(
                f"{_told(seen)}; a configuration chosen after that looks better than it is: "
                "score it all the same with --again"
            )

    def score_of(self, checkpoint: str) -> Opening | None:
        """Return the last opening that scored this checkpoint; None if there is none."""
        own = [one for one in self.earlier() if one.checkpoint == checkpoint and one.score is not None]
        return own[-1] if own else None

    def opening(self, *, reason: str, checkpoint: str, host: str) -> Opening:
        """Return the opening that is about to happen, after the service was told of it."""
        from ..results.opening import Opening

        dataset = self._dataset
        new = Opening(
            id=uuid.uuid4(),
            test_list=dataset.test_list,
            split=dataset.spec.split,
            dataset_version=dataset.version,
            opened_at=datetime.now(UTC),
            reason=reason,
            checkpoint=checkpoint,
            host=host,
        )
        if self.earlier():
            err.print(_told(self.earlier()))
        self._send([new])
        return new

    def keep_score(self, opening: Opening, score: Mapping[str, Any]) -> None:
        """Keep what an opening found."""
        from ..results.opening import Opening

        self._dataset.seal.append({"id": str(opening.id), "score": dict(score)})
        scored = Opening.model_validate({**opening.model_dump(), "score": json.loads(json.dumps(score))})
        try:
            self._send([scored], patience_seconds=_PATIENCE_SECONDS)
        except StoreUnavailableError as error:  # the score took long to compute: it is shown all the same
            err.print(
                f"the service took no record of the score ({error}): it is in {self._dataset.seal.path}, and the next "
                "evaluation sends it"
            )

    def _local(self, lines: Iterable[Mapping[str, Any]]) -> Iterable[Opening]:
        """Yield the openings that the cache has recorded."""
        from pydantic import ValidationError

        from ..results.opening import Opening

        for line in lines:
            reason = f"perhaps of this list: {line.get('reason')}" if line.get("perhaps") else line.get("reason")
            known = {"test_list": self._dataset.test_list, "split": line.get("split"), "reason": reason}
            rest = {name: line[name] for name in ("checkpoint", "host", "score") if name in line}
            try:
                yield Opening.model_validate(
                    {
                        "id": line.get("id", uuid.uuid5(_EARLIER_RELEASE, f"{line.get('time')} {known}")),
                        "dataset_version": line.get("version"),
                        "opened_at": datetime.fromtimestamp(float(line.get("time", 0)), UTC),
                        "videos": line.get("clips"),
                        **known,
                        **rest,
                    }
                )
            except (ValidationError, ValueError, TypeError, OverflowError) as error:
                raise HpoError(
                    f"{self._dataset.seal.path} has a line that is not the record of an opening; correct or remove it"
                ) from error

    def _exchange(self, local: Iterable[Opening]) -> list[Opening]:
        """Send the service what only this machine knows, and return what it knows."""
        from ..client.problems import UnreachableError
        from ..results.opening import Opening

        try:
            with client_of(self._settings) as client:
                served = [Opening.model_validate(one) for one in client.openings(self._dataset.test_list)]
                scored = {one.id for one in served if one.score is not None}
                known = {one.id for one in served}
        except (UnreachableError, AuthenticationError, NotFoundError) as error:
            self._alone(error)
            return []
        self._send([one for one in local if one.id not in (known if one.score is None else scored)])
        return served

    def _send(self, openings: Iterable[Opening], *, patience_seconds: float = 0.0) -> None:
        from ..client.problems import UnreachableError

        if not self._served:
            return
        try:
            with client_of(self._settings) as client:
                client.patience_seconds = patience_seconds
                for opening in openings:
                    client.keep_opening(opening.model_dump(mode="json"))
        except (UnreachableError, AuthenticationError, NotFoundError, PermissionDeniedError) as error:
            self._alone(error)

    def _alone(self, error: HpoError) -> None:
        from ..client.problems import UnreachableError

        self._served = False
        reason = "the service takes no record of it"
        if isinstance(error, UnreachableError):
            reason = "no service answers"
        if isinstance(error, NotFoundError):
            reason = "the service is of an earlier release, which keeps no openings"
        err.print(f"{reason}: the opening is recorded in {self._dataset.seal.path} alone")


def _told(openings: list[Opening]) -> str:
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    told = "; ".join(opening.sentence() for opening in openings[-_SHOWN:])
    which = "the last of them: " if len(openings) > _SHOWN else ""
    return f"this test list was opened {times} before ({which}{told})"
