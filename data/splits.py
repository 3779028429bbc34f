"""Splits that do not leak: validation is whole groups held out of the train list.

Clips of one group show the same people and place. With a random validation set every validation clip
would have a sister in training, and a search would reward memorising.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import GroupLeakError, SplitError
from .index import ListedClip

_HELD_OUT_SHARE = 1 / 6
"""Of the train groups of a class: 3 of the 18 of UCF101, 16.6 % of the clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Ids of the clips of each part, in the order of the index. Unusable clips are still in."""

    number: int
    fit: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...] = ()


def group_split(clips: Iterable[ListedClip], number: int) -> Split:
    """Return official split `number` with the highest-numbered sixth of the train groups held out.

    At least one group of every class is held out, unless a class has only one. Whether a video is
    usable does not matter, so that a broken file never moves a group to the other side.

    Raises:
        SplitError: the lists do not describe this split, or one of its parts is empty.
        GroupLeakError: a group stands on the train and on the test list.
    """
    clips = tuple(clips)
    train = [clip for clip in clips if clip.subset(number) == "train"]
    test = [clip for clip in clips if clip.subset(number) == "test"]
    if not train:
        known = sorted({split for clip in clips for split, _ in clip.official})
        raise SplitError(f"the lists have no train clips of split {number}; they describe {known}")
    check_disjoint({"train": train, "test": test})
    held_out, notes = _held_out(train)
    fit = [clip for clip in train if _unit(clip) not in held_out]
    validation = [clip for clip in train if _unit(clip) in held_out]
    if not validation:
        raise SplitError(
            f"split {number} has one group per class, none can be held out for validation; add clips of a second group"
        )
    check_disjoint({"fit": fit, "validation": validation, "test": test})
    return Split(number=number, fit=_ids(fit), validation=_ids(validation), test=_ids(test), notes=notes)


def check_disjoint(parts: Mapping[str, Iterable[ListedClip]]) -> None:
    """Refuse parts of a split between which a group crosses.

    Raises:
        GroupLeakError: names the group and the two parts.
    """
    owner: dict[tuple[str, str], str] = {}
    for part, clips in parts.items():
        for clip in clips:
            first = owner.setdefault(_unit(clip), part)
            if first != part:
                raise GroupLeakError(
                    f"group {clip.group} of class {clip.class_name} is in {first} and in {part}; "
                    "a group must stay on one side of a split"
                )


def _held_out(train: list[ListedClip]) -> tuple[set[tuple[str, str]], tuple[str, ...]]:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for clip in train:
        groups[clip.class_name].add(clip.group)
    held_out: set[tuple[str, str]] = set()
    single = []
    for class_name, names in groups.items():
        if len(names) == 1:
            single.append(class_name)
            continue
        count = max(1, round(len(names) * _HELD_OUT_SHARE))
        highest = sorted(names, key=_natural)[-count:]
        held_out.update((class_name, name) for name in highest)
    if not single:
        return held_out, ()
    return held_out, (f"no validation clips of {', '.join(sorted(single))}: one group only",)


def _unit(clip: ListedClip) -> tuple[str, str]:
    """Return what must not cross: the group within its class, as UCF101 numbers them."""
    return clip.class_name, clip.group


def _natural(group: str) -> tuple[int, str]:
    """Order `g9` before `g10`."""
    digits = "".join(character for character in group if character.isdigit())
    return (int(digits) if digits else 0, group)


def _ids(clips: Iterable[ListedClip]) -> tuple[str, ...]:
    return tuple(clip.id for clip in clips)
