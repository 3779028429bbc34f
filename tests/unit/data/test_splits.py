"""Splits: what is held out, and that no group ever crosses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import GroupLeakError, SplitError
from data.importers.ucf101 import read_ucf101
from data.index import ListedClip, Subset
from data.specs import SplitSpec
from data.splits import Split, check_disjoint, make_split


def group_split(clips: Iterable[ListedClip], number: int) -> Split:
    return make_split(clips, SplitSpec(split=number))


def clip(class_name: str, group: int, number: int, side: Subset = "train") -> ListedClip:
    return ListedClip(
        id=f"{class_name}/g{group:02d}_c{number:02d}",
        path="",
        label=0,
        class_name=class_name,
        group=f"{class_name}/g{group:02d}",
        official=((1, side),),
    )


@pytest.fixture(scope="module")
def ucf101(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ListedClip, ...]:
    root = tmp_path_factory.mktemp("ucf101")
    (root / "ucfTrainTestlist").symlink_to(shared_data / "splits" / "ucf101")
    (root / "UCF-101" / "ApplyEyeMakeup").mkdir(parents=True)
    return read_ucf101(root).clips


@pytest.mark.parametrize(("number", "fit", "test"), [(1, 7953, 3783), (2, 8002, 3734), (3, 8040, 3696)])
def test_ucf101_holds_out_groups_23_to_25(ucf101: tuple[ListedClip, ...], number: int, fit: int, test: int) -> None:
    split = group_split(ucf101, number)
    assert (len(split.fit), len(split.validation), len(split.test)) == (fit, 1584, test)
    group = {c.id: c.group for c in ucf101}
    assert {group[id_].rpartition("/")[2] for id_ in split.validation} == {"g23", "g24", "g25"}
    assert not split.notes


def test_ucf101_validation_is_the_same_in_all_splits(ucf101: tuple[ListedClip, ...]) -> None:
    validations = [set(group_split(ucf101, number).validation) for number in (1, 2, 3)]
    assert validations[0] == validations[1] == validations[2]


GROUPS = st.dictionaries(
    st.tuples(st.sampled_from(["Run", "Walk", "Swim"]), st.integers(1, 30)),
    st.tuples(st.integers(1, 3), st.sampled_from(["train", "train", "train", "test"])),
    min_size=1,
)


@given(GROUPS)
def test_any_split_is_whole_and_leak_free(
    groups: dict[tuple[str, int], tuple[int, Subset]],
) -> None:
    clips = [
        clip(name, group, number, side) for (name, group), (count, side) in groups.items() for number in range(count)
    ]
    trained = defaultdict(set)
    for (name, group), (_, side) in groups.items():
        if side == "train":
            trained[name].add(group)
    if not any(len(numbers) > 1 for numbers in trained.values()):
        with pytest.raises(SplitError):
            group_split(clips, 1)
        return
    split = group_split(clips, 1)
    parts = [set(split.fit), set(split.validation), set(split.test)]
    assert set.union(*parts) == {c.id for c in clips}
    assert sum(map(len, parts)) == len(clips)
    for name, numbers in trained.items():
        held_out = {g for g in numbers if f"{name}/g{g:02d}_c00" in parts[1]}
        expected = 0 if len(numbers) == 1 else max(1, round(len(numbers) / 6))
        assert held_out == set(sorted(numbers)[len(numbers) - expected :])


def test_a_group_on_both_official_lists_is_refused() -> None:
    clips = [clip("Run", 1, 1), clip("Run", 2, 1), clip("Run", 2, 2, "test")]
    with pytest.raises(GroupLeakError, match="group Run/g02 of class Run is in train and in test"):
        group_split(clips, 1)


def test_parts_between_which_a_group_crosses_are_refused() -> None:
    with pytest.raises(GroupLeakError, match="group Run/g01 is in fit and in validation"):
        check_disjoint({"fit": [clip("Run", 1, 1)], "validation": [clip("Run", 1, 2)]})


def test_equal_group_numbers_of_two_classes_are_two_groups() -> None:
    check_disjoint({"fit": [clip("Run", 1, 1)], "validation": [clip("Walk", 1, 1)]})


def test_a_split_that_no_list_describes_is_refused() -> None:
    with pytest.raises(SplitError, match=r"split 4; they describe \[1\]"):
        group_split([clip("Run", 1, 1)], 4)


def test_a_class_of_one_group_stays_in_fit_and_is_remarked() -> None:
    split = group_split([clip("Run", 1, 1), clip("Walk", 1, 1), clip("Walk", 2, 1)], 1)
    assert split.validation == ("Walk/g02_c01",)
    assert split.notes == ("no validation clips of Run: one group only",)


def test_groups_are_ordered_by_number_not_by_spelling() -> None:
    clips = [
        ListedClip(
            id=f"Run/{group}_c01",
            path="",
            label=0,
            class_name="Run",
            group=f"Run/{group}",
            official=((1, "train"),),
        )
        for group in ("g9", "g10")
    ]
    assert group_split(clips, 1).validation == ("Run/g10_c01",)
