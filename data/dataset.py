"""A data set opened for training: scanned, split, prepared, its test list sealed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidSpecError, SplitError
from .index.records import ClipRecord, Index, Problem
from .index.seal import SealLog, digest_of_test_list
from .index.splits import Split, make_split
from .preparation.prepare import prepare
from .progress import Progress
from .remote.copies import local_spec
from .scanning.scan import scan_into
from .specs import AugmentSpec, ClipSpec, DatasetSpec, Stream
from .stores.protocol import FrameStore

if TYPE_CHECKING:
    import torch

    from .clips.loader import ClipLoader
    from .clips.share import Share

_log = logging.getLogger(__name__)


class Dataset:
    """One split of a data set, ready to be trained on.

    Loaders see the fit and the validation clips. The test clips are reachable through `unseal_test` and
    `test_loader` only, which ask for a reason and keep a record of it.
    """

    def __init__(
        self, spec: DatasetSpec, index: Index, split: Split, stores: Mapping[Stream, FrameStore], unsealed_log: Path
    ) -> None:
        self.spec = spec
        self.index = index
        self._split = split
        self.stores = dict(stores)
        self.seal = SealLog(unsealed_log)
        """Every opening of test lists prepared in this cache."""
        self._usable = {clip.id: clip for clip in index.usable}

    def with_validation_trained(self) -> Dataset:
        """Return the data set whose validation videos train as well, for a last refit.

        Its validation scores say nothing.
        """
        split = replace(self._split, fit=self._split.fit + self._split.validation)
        return Dataset(self.spec, self.index, split, self.stores, self.seal.path)

    @property
    def validation_clips(self) -> tuple[ClipRecord, ...]:
        """Usable clips of the validation list."""
        return self._clips(self._split.validation)

    @property
    def trains_validation(self) -> bool:
        """Whether the validation videos train as well (`with_validation_trained`)."""
        return not set(self._split.validation).isdisjoint(self._split.fit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Position is the label."""
        return self.index.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_fit(self) -> int:
        """Usable videos that are trained on."""
        return len(self._clips(self._split.fit))

    @property
    def version(self) -> str:
        """Hash of the index: to be recorded with whatever is trained on this data."""
        return self.index.hash

    @property
    def test_list(self) -> str:
        """Identity of the test list: the same wherever the videos lie.

        Raises:
            SplitError: the split names no test clips.
        """
        if not self._split.test:
            self.require_test_clips()
        return digest_of_test_list(self.index.clips, self._split.number)

    def earlier_openings(self) -> list[dict[str, Any]]:
        """Return the openings of this test list that this cache knows, the oldest first (`SealLog`).

        Raises:
            SplitError: there are no usable test clips.
        """
        return self.seal.openings(
            test_list=self.test_list,
            version=self.version,
            split=self._split.number,
            clips=self.require_test_clips(),
        )

    def require_test_clips(self) -> int:
        """Return how many usable clips the test list has; the seal holds.

        Raises:
            SplitError: it has none.
        """
        return len(self._test_clips())

    def has_test_clips_of(self, other: Dataset) -> bool:
        """Return whether the test list is that of another data set, with the same usable clips; both seals hold."""
        same = [clip.id for clip in self._test_clips()] == [clip.id for clip in other._test_clips()]
        return same and self.test_list == other.test_list

    def _test_clips(self) -> tuple[ClipRecord, ...]:
        clips = self._clips(self._split.test)
        if not clips:
            named = "has no usable" if self._split.test else "names no"
            raise SplitError(f"split {self._split.number} of {self.spec.root} {named} test clips; none can be scored")
        return clips

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Clips that are left out, named and explained."""
        return self.index.problems()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for people."""
        return self.index.notes + self._split.notes

    def train_loader(
        self,
        *,
        clip: ClipSpec,
        augment: AugmentSpec | None = None,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        share: Share | None = None,
        prefetch: int | None = None,
        readers: int | None = None,
    ) -> ClipLoader:
        """Return a loader of random clips of the fit videos, one of each per epoch.

        Args:
            drop_last: leave out a last batch that is not full; one of a single video always is.
            share: take this share of each batch alone: several processes train on it together.
        """
        from .clips.loader import ClipLoader  # imports torch
        from .clips.plan import TrainingRows

        rows = TrainingRows(clip=clip, augment=augment or AugmentSpec(), seed=seed)
        return ClipLoader(
            self.stores,
            self._clips(self._split.fit),
            rows,
            batch_size=batch_size,
            device=device,
            drop_last=drop_last,
            drop_single=True,
            share=share,
            num_classes=self.num_classes,
            prefetch=prefetch,
            readers=readers,
        )

    def statistics_loader(
        self,
        *,
        clip: ClipSpec,
        batch_size: int,
        seed: int,
        most_batches: int,
        device: torch.device | str = "cpu",
        prefetch: int | None = None,
        readers: int | None = None,
    ) -> ClipLoader:
        """Return a loader of some fit videos, as a validation would see them: for statistics of a network's layers.

        Every epoch draws its own `most_batches` batches, or all that there are; one of a single video is left out.
        """
        from .clips.loader import ClipLoader  # imports torch
        from .clips.plan import ShuffledEvaluationRows

        return ClipLoader(
            self.stores,
            self._clips(self._split.fit),
            ShuffledEvaluationRows(clip=clip.for_evaluation(), seed=seed),
            batch_size=batch_size,
            device=device,
            drop_single=True,
            most_batches=most_batches,
            prefetch=prefetch,
            readers=readers,
        )

    def validation_loader(
        self,
        *,
        clip: ClipSpec,
        batch_size: int,
        device: torch.device | str = "cpu",
        views: int = 1,
        crops: int = 1,
        prefetch: int | None = None,
        readers: int | None = None,
    ) -> ClipLoader:
        """Return a loader of all validation videos in the order of the index: `views` clips in `crops` crops each."""
        from .clips.loader import ClipLoader  # imports torch
        from .clips.plan import EvaluationRows

        return ClipLoader(
            self.stores,
            self.validation_clips,
            EvaluationRows(clip=clip.for_evaluation(), clips=views, crops=crops),
            batch_size=batch_size,
            device=device,
            prefetch=prefetch,
            readers=readers,
        )

    def test_loader(
        self,
        *,
        reason: str,
        clip: ClipSpec,
        batch_size: int,
        device: torch.device | str = "cpu",
        views: int = 1,
        crops: int = 1,
        prefetch: int | None = None,
        readers: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> ClipLoader:
        """Return a loader of all test videos, and break the seal; see `unseal_test`."""
        from .clips.loader import ClipLoader  # imports torch
        from .clips.plan import EvaluationRows

        rows = EvaluationRows(
            clip=clip.for_evaluation(), clips=views, crops=crops
        )  # refuses views before the seal is broken
        return ClipLoader(
            self.stores,
            self.unseal_test(reason=reason, about=about),
            rows,
            batch_size=batch_size,
            device=device,
            prefetch=prefetch,
            readers=readers,
        )

    def opened_test_loader(
        self,
        *,
        opening: str,
        clip: ClipSpec,
        batch_size: int,
        device: torch.device | str = "cpu",
        views: int = 1,
        crops: int = 1,
    ) -> ClipLoader:
        """Return the same loader for an opening that is on record, such as that of another process: none is added.

        Args:
            opening: the `id` of the opening.

        Raises:
            SplitError: this list has no such opening, or no usable test clips.
        """
        from .clips.loader import ClipLoader  # imports torch
        from .clips.plan import EvaluationRows

        if all(one.get("id") != opening for one in self.earlier_openings()):
            raise SplitError(f"the test list of split {self._split.number} has no opening {opening}: it is sealed")
        rows = EvaluationRows(clip=clip.for_evaluation(), clips=views, crops=crops)
        return ClipLoader(self.stores, self._test_clips(), rows, batch_size=batch_size, device=device)

    def unseal_test(self, *, reason: str, about: Mapping[str, Any] | None = None) -> tuple[ClipRecord, ...]:
        """Return the usable clips of the test list, and record that and why it was opened.

        Args:
            about: what else the record says, such as the `id` of the opening.

        Raises:
            InvalidSpecError: the reason is empty.
            SplitError: the split has no usable test clips.
            CacheError: the record cannot be written; the seal holds.
        """
        if not reason.strip():
            raise InvalidSpecError("the test list is sealed; say for what reason it is opened")
        clips = self._test_clips()
        self.seal.append(
            {
                "time": time.time(),
                "version": self.version,
                "split": self._split.number,
                "test_list": self.test_list,
                "clips": len(clips),
                "reason": reason,
                **(about or {}),
            }
        )
        _log.warning("test list of split %d opened: %s", self._split.number, reason)
        return clips

    def _clips(self, ids: Iterable[str]) -> tuple[ClipRecord, ...]:
        return tuple(self._usable[id_] for id_ in ids if id_ in self._usable)


def open_dataset(spec: DatasetSpec, *, cache_dir: str | Path, progress: Progress | None = None) -> Dataset:
    """Return a data set, opened; scan, split and prepare it first unless that is done.

    Safe to call from several processes at once: one does the work, the others wait for it. Broken videos are left
    out and listed in `Dataset.problems`.

    Args:
        cache_dir: folder for prepared frames and remembered scans; made if missing.
        progress: called with how far copying ("copy"), scanning ("scan") and decoding ("prepare") are.

    Raises:
        DatasetError: one of its subclasses, with a sentence that says what to do.
    """
    cache_dir = Path(cache_dir).expanduser()
    local = local_spec(spec, cache_dir, progress=progress)
    index = scan_into(
        cache_dir, Path(local.root).expanduser(), name=spec.name, group_pattern=spec.group_pattern, progress=progress
    )
    split = make_split(index.clips, spec)
    _require_clips(spec, index, split)
    stores = prepare(index, local, cache_dir, progress=progress)
    return Dataset(spec, index, split, stores, cache_dir / "unsealed.jsonl")


def _require_clips(spec: DatasetSpec, index: Index, split: Split) -> None:
    usable = {clip.id: clip for clip in index.usable}
    where = f"split {split.number} of {spec.root}"
    for part, ids in (("fit", split.fit), ("validation", split.validation)):
        if not any(id_ in usable for id_ in ids):
            first = next(p for p in index.problems() if p.id in set(ids))
            raise SplitError(
                f"{where} has no usable {part} clips: {len(ids)} videos are left out, e.g. {first.path} ({first.note})"
            )
    classes = {usable[id_].label for id_ in split.fit if id_ in usable}
    if len(classes) < 2:
        raise SplitError(f"{where} has usable clips of {len(classes)} class; training needs two")
