"""Splits without leaks: validation consists of whole groups held out of the train list.

Clips of one group show the same people and place. With a random validation set every validation clip
would have a clip of the same source in training, and the search would reward memorising.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import GroupLeakError, SplitError
from ..specs import SplitSpec
from .groups import has_groups
from .records import ListedClip

_MEND = "list its clips on one side, or say with group_pattern what their sources are"


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Ids of the clips of each part, in the order of the index, with those of unusable clips."""

    number: int
    fit: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    """Empty if the data set has no test list."""
    notes: tuple[str, ...] = ()


def make_split(clips: Iterable[ListedClip], spec: SplitSpec) -> Split:
    """Return official split `spec.split`, with validation clips chosen by `spec.validation`.

    `groups` holds the share `spec.held_out` of every class's groups out of the train list: first those that are on no
    test list of any split, the highest-numbered first, then the others; of UCF101 these are groups 23 to 25 in each of
    the three splits. With a seed they are drawn from all train groups. `kfold` holds out one fold of the groups,
    `official` uses the layout's own validation list. `random` is for sets without known sources.

    A group that is also on the test list (HMDB51 has some, in other classes) is never held out. Unusable videos count
    too, so that a broken file never moves a group to another side.

    Raises:
        SplitError: the lists do not describe this split, or one of its parts is empty.
        GroupLeakError: a group would be on two sides.
    """
    parts = _Official.of(tuple(clips), spec.split)
    notes = parts.check()
    if spec.validation == "official":
        validation, more = _official_validation(parts)
    else:
        held_out, more = _held_out_by(parts, spec)
        validation = [clip for clip in parts.train if clip.group in held_out]
    chosen = {clip.id for clip in validation}
    fit = [clip for clip in parts.train if clip.id not in chosen]
    if not validation:
        raise SplitError(
            f"split {spec.split} has one group per class, none can be held out for validation; "
            "add clips of a second group"
        )
    if not fit:
        raise SplitError(f"nothing of split {spec.split} is left to train on; hold out less")
    check_disjoint({"fit": fit, "validation": validation})
    check_disjoint({"validation": validation, "test": parts.test})
    return Split(
        number=spec.split,
        fit=_ids(fit),
        validation=_ids(validation),
        test=_ids(parts.test),
        notes=(*notes, *more, *_lacking(parts.train, fit, "fit"), *_lacking(parts.train, validation, "validation")),
    )


def check_disjoint(parts: Mapping[str, Iterable[ListedClip]]) -> None:
    """Check that no group is in two parts of a split.

    Raises:
        GroupLeakError: a group is; the message names it and the two parts.
    """
    owner: dict[str, tuple[str, str]] = {}
    for part, clips in parts.items():
        for clip in clips:
            first, other = owner.setdefault(clip.group, (part, clip.id))
            if first != part:
                raise GroupLeakError(
                    f"group {clip.group} is in {first} ({other}) and in {part} ({clip.id}); "
                    f"a group must stay on one side of a split: {_MEND}"
                )


@dataclass(frozen=True, kw_only=True)
class _Official:
    """The sides of an official split."""

    number: int
    train: tuple[ListedClip, ...]
    validation: tuple[ListedClip, ...]
    test: tuple[ListedClip, ...]
    ever_tested: frozenset[str]
    """Groups on the test list of any split."""

    @classmethod
    def of(cls, clips: Sequence[ListedClip], number: int) -> _Official:
        sides: defaultdict[str | None, list[ListedClip]] = defaultdict(list)
        for clip in clips:
            sides[clip.subset(number)].append(clip)
        if not sides["train"]:
            known = sorted({split for clip in clips for split, _ in clip.official})
            raise SplitError(f"the lists have no train clips of split {number}; they describe {known}")
        return cls(
            number=number,
            train=tuple(sides["train"]),
            validation=tuple(sides["validation"]),
            test=tuple(sides["test"]),
            ever_tested=frozenset(c.group for c in clips if any(side == "test" for _, side in c.official)),
        )

    def check(self) -> tuple[str, ...]:
        """Return notes about groups that are in train and test in different classes.

        Raises:
            GroupLeakError: a group is in train and test in the same class.
        """
        trained = {(clip.group, clip.class_name): clip.id for clip in self.train}
        for clip in self.test:
            if (clip.group, clip.class_name) in trained:
                other = trained[clip.group, clip.class_name]
                raise GroupLeakError(
                    f"group {clip.group} of class {clip.class_name} is in train ({other}) and in test ({clip.id}) of "
                    f"split {self.number}; a group must stay on one side of a split: {_MEND}"
                )
        crossing = {group for group, _ in trained} & {clip.group for clip in self.test}
        if not crossing:
            return ()
        return (
            f"{len(crossing)} sources are on the official train list of one class and on the test list of another, "
            f"e.g. {min(crossing)}; the lists are kept, and no such source is held out for validation",
        )


def _official_validation(parts: _Official) -> tuple[list[ListedClip], tuple[str, ...]]:
    """Return the clips of the layout's own validation list without those of sources in train or test, and notes."""
    if not parts.validation:
        raise SplitError(
            f"the data set has no validation list of split {parts.number} beside its test list; "
            "say `validation: groups` to hold out train clips"
        )
    others = parts.train + parts.test
    same_class = {(clip.group, clip.class_name) for clip in others}
    for clip in parts.validation:
        if (clip.group, clip.class_name) in same_class:
            raise GroupLeakError(
                f"group {clip.group} of class {clip.class_name} is on the validation list and on another list of "
                f"split {parts.number}; say `validation: groups` to hold out whole groups instead"
            )
    elsewhere = {clip.group for clip in others}
    kept = [clip for clip in parts.validation if clip.group not in elsewhere]
    left_out = len(parts.validation) - len(kept)
    note = f"{left_out} clips of the validation list are left out: their sources are on another list, in other classes"
    return kept, (note,) if left_out else ()


def _held_out_by(parts: _Official, spec: SplitSpec) -> tuple[set[str], tuple[str, ...]]:
    known = has_groups(parts.train)
    ((largest, clips),) = Counter(clip.group for clip in parts.train).most_common(1)
    if spec.validation == "random" and clips > 1:
        raise GroupLeakError(
            f"a random validation set would leak: group {largest} alone has {clips} train clips, which would "
            "stand on both sides; say `validation: groups`"
        )
    notes = []
    if not known:
        notes.append(
            "the names do not show the sources: validation clips are drawn at random, and may share their source with "
            "training clips; `group_pattern` can name the sources"
        )
    if parts.validation:
        notes.append(f"{len(parts.validation)} clips of the official validation list are not used")
    pool = _Pool.of(parts, _order(parts, spec, known=known))
    held_out = pool.fold(spec.folds, spec.fold) if spec.validation == "kfold" else pool.share(spec.held_out_share)
    return held_out, tuple(notes)


def _order(parts: _Official, spec: SplitSpec, *, known: bool) -> Callable[[str], Any]:
    """Return the sort key of groups: those with the lowest key are held out first."""
    seed = spec.split_seed
    if seed is None and known:
        return lambda group: (group in parts.ever_tested, _Descending(_natural(group)))
    number = seed if isinstance(seed, int) else 0
    return lambda group: hashlib.sha256(f"{number}|{group}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The train groups of every class, and those of them that may be held out."""

    groups: dict[str, list[str]]
    """By class: its train groups that are not on the test list, in the order in which they are held out."""
    sizes: dict[str, int]
    """By class: the number of its train groups."""
    classes: dict[str, frozenset[str]] = field(repr=False)
    """By group: the classes that it has train clips of."""

    @classmethod
    def of(cls, parts: _Official, order: Callable[[str], Any]) -> _Pool:
        classes: defaultdict[str, set[str]] = defaultdict(set)
        by_class: defaultdict[str, set[str]] = defaultdict(set)
        for clip in parts.train:
            classes[clip.group].add(clip.class_name)
            by_class[clip.class_name].add(clip.group)
        tested = {clip.group for clip in parts.test}
        return cls(
            groups={name: sorted(groups - tested, key=order) for name, groups in sorted(by_class.items())},
            sizes={name: len(groups) for name, groups in by_class.items()},
            classes={group: frozenset(names) for group, names in classes.items()},
        )

    def share(self, share: float) -> set[str]:
        """Return the groups to hold out: this share of every class, at least one, but never the last one of a class."""
        held_out: set[str] = set()
        left = dict(self.sizes)
        for name, groups in self.groups.items():
            wanted = max(1, round(self.sizes[name] * share))
            have = sum(group in held_out for group in groups)
            for group in groups:
                if have >= wanted:
                    break
                if group not in held_out and all(left[other] > 1 for other in self.classes[group]):
                    held_out.add(group)
                    have += 1
                    for other in self.classes[group]:
                        left[other] -= 1
        return held_out

    def fold(self, folds: int, fold: int) -> set[str]:
        """Return the groups of fold `fold` of `folds`; the groups of every class are distributed evenly."""
        dealt: dict[str, int] = {}
        for name, groups in self.groups.items():
            if self.sizes[name] == 1:
                continue  # the only group of a class is always trained on
            filled = Counter(dealt[group] for group in groups if group in dealt)
            for group in groups:
                if group not in dealt:
                    emptiest = min(range(1, folds + 1), key=lambda number: (filled[number], number))
                    dealt[group] = emptiest
                    filled[emptiest] += 1
        found = {group for group, number in dealt.items() if number == fold}
        if not found:
            raise SplitError(f"fold {fold} of {folds} holds no group; the classes have fewer groups than folds")
        return found


@dataclass(frozen=True, slots=True)
class _Descending:
    """A sort key in reverse order."""

    value: tuple[int | str, ...]

    def __lt__(self, other: _Descending) -> bool:
        return other.value < self.value


def _natural(group: str) -> tuple[int | str, ...]:
    """Return a sort key that puts `g9` before `g10`: text and numbers alternate."""
    parts = re.split(r"([0-9]+)", group)
    return tuple(int(part) if position % 2 else part for position, part in enumerate(parts))


def _lacking(train: Sequence[ListedClip], part: Iterable[ListedClip], name: str) -> tuple[str, ...]:
    lacking = sorted({clip.class_name for clip in train} - {clip.class_name for clip in part})
    if not lacking:
        return ()
    reason = ": one group only" if name == "validation" else ": all its groups are held out"
    return (f"no {name} clips of {', '.join(lacking)}{reason}",)


def _ids(clips: Iterable[ListedClip]) -> tuple[str, ...]:
    return tuple(clip.id for clip in clips)
