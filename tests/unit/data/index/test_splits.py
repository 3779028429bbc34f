"""Splits: what is held out, and that no group ever crosses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import GroupLeakError, SplitError
from data.importers.ucf101 import read_ucf101
from data.index.records import ListedClip, Subset
from data.index.splits import Split, check_disjoint, make_split
from data.specs import SplitSpec


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
    with pytest.raises(GroupLeakError, match=r"group Run/g02 of class Run is in train \(.*\) and in test"):
        group_split(clips, 1)


def test_parts_that_share_a_group_are_refused() -> None:
    with pytest.raises(
        GroupLeakError, match=r"group Run/g01 is in fit \(Run/g01_c01\) and in validation \(Run/g01_c02\)"
    ):
        check_disjoint({"fit": [clip("Run", 1, 1)], "validation": [clip("Run", 1, 2)]})


def test_equal_group_numbers_of_two_classes_are_two_groups() -> None:
    check_disjoint({"fit": [clip("Run", 1, 1)], "validation": [clip("Walk", 1, 1)]})


def test_a_split_that_no_list_describes_is_refused() -> None:
    with pytest.raises(SplitError, match=r"split 4; they describe \[1\]"):
        group_split([clip("Run", 1, 1)], 4)


def test_a_class_of_one_group_stays_in_fit_with_a_note() -> None:
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


def spread(groups: int = 18, classes: tuple[str, ...] = ("Run", "Walk")) -> list[ListedClip]:
    """Return two clips of each of so many train groups per class."""
    return [clip(name, group, number) for name in classes for group in range(1, groups + 1) for number in (1, 2)]


def held_out(clips: Iterable[ListedClip], **spec: object) -> set[str]:
    group = {each.id: each.group for each in clips}
    return {group[id_] for id_ in make_split(clips, SplitSpec(**spec)).validation}  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(("share", "groups"), [("3of18", 3), ("1of6", 3), ("4of18", 4), ("17of18", 17), ("1of100", 1)])
def test_a_share_is_that_many_groups_of_every_class(share: str, groups: int) -> None:
    found = held_out(spread(), held_out=share)
    assert found == {f"{name}/g{number:02d}" for name in ("Run", "Walk") for number in range(19 - groups, 19)}


def test_a_seed_for_each_trial_is_a_seed_where_there_is_no_trial() -> None:
    assert held_out(spread(), split_seed="trial") == held_out(spread(), split_seed=0)


def test_a_seed_draws_other_groups_and_always_the_same() -> None:
    drawn = [held_out(spread(), split_seed=seed) for seed in (0, 1, 2, 0)]
    assert drawn[0] == drawn[3]
    assert len({frozenset(each) for each in drawn}) == 3
    assert all(len(each) == 6 for each in drawn)
    assert held_out(spread()[::-1], split_seed=0) == drawn[0]


def test_groups_that_no_split_tests_on_are_held_out_first() -> None:
    clips = [
        replace(each, official=((1, "train"), (2, "test" if int(each.group[-2:]) > 3 else "train")))
        for each in spread(groups=6)
    ]
    assert held_out(clips, split=1, held_out="2of6") == {"Run/g02", "Run/g03", "Walk/g02", "Walk/g03"}
    assert held_out(clips, split=2, held_out="2of3") == held_out(clips, split=1, held_out="2of6")


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("folds", [2, 5, 18])
def test_folds_part_the_groups_evenly(folds: int, seed: int | None) -> None:
    parts = [
        held_out(spread(), validation="kfold", folds=folds, fold=fold, split_seed=seed) for fold in range(1, folds + 1)
    ]
    assert set.union(*parts) == {each.group for each in spread()}
    assert sum(map(len, parts)) == 36
    for name in ("Run", "Walk"):
        sizes = {sum(group.startswith(name) for group in part) for part in parts}
        assert max(sizes) - min(sizes) <= 1


def test_a_fold_without_groups_is_refused() -> None:
    with pytest.raises(SplitError, match="fold 5 of 5 holds no group"):
        make_split(spread(groups=2), SplitSpec(validation="kfold", folds=5, fold=5))


def test_the_six_folds_of_ucf101_have_three_groups_per_class(ucf101: tuple[ListedClip, ...]) -> None:
    parts = [held_out(ucf101, split=2, validation="kfold", folds=6, fold=fold) for fold in range(1, 7)]
    assert [len(part) for part in parts] == [303] * 6
    assert len(set.union(*parts)) == 18 * 101


def test_a_random_split_of_ucf101_is_refused(ucf101: tuple[ListedClip, ...]) -> None:
    with pytest.raises(GroupLeakError, match="a random validation set would leak: group"):
        make_split(ucf101, SplitSpec(validation="random"))


@pytest.mark.parametrize("validation", ["random", "groups"])
def test_clips_of_unknown_source_are_drawn_at_random_with_a_warning(validation: str) -> None:
    clips = [replace(each, group=each.id) for each in spread()]
    split = make_split(clips, SplitSpec(validation=validation))  # type: ignore[arg-type]  # one of the literals
    assert len(split.validation) == 12
    assert "may share their source" in split.notes[0]
    other = make_split(clips, SplitSpec(validation=validation, split_seed=1))  # type: ignore[arg-type]  # one of the literals
    assert set(other.validation) != set(split.validation)


def test_sources_of_one_clip_each_may_be_drawn_at_random() -> None:
    clips = [replace(each, group=f"video of {each.id}") for each in spread()]
    split = make_split(clips, SplitSpec(validation="random"))
    assert len(split.validation) == 12
    assert split.notes == ()


def official(*sides: tuple[str, str, Subset]) -> list[ListedClip]:
    """Return clips of (class, group, side), groups being shared by classes."""
    return [replace(clip(name, 1, number, side), group=group) for number, (name, group, side) in enumerate(sides)]


def test_an_official_validation_list_is_taken() -> None:
    clips = official(("Run", "a", "train"), ("Run", "b", "validation"), ("Run", "c", "test"))
    split = make_split(clips, SplitSpec(validation="official"))
    assert (split.fit, split.validation, split.test) == tuple((each.id,) for each in clips)
    assert split.notes == ()


def test_an_official_validation_list_that_leaks_is_refused_or_reduced() -> None:
    clips = official(
        ("Run", "a", "train"), ("Walk", "b", "train"), ("Run", "b", "validation"), ("Run", "c", "validation")
    )
    split = make_split(clips, SplitSpec(validation="official"))
    assert split.validation == (clips[3].id,)
    assert "1 clips of the validation list are left out" in split.notes[0]
    with pytest.raises(GroupLeakError, match="group a of class Run is on the validation list and on another"):
        make_split([*clips, *official(("Run", "a", "validation"))], SplitSpec(validation="official"))


def test_without_an_official_validation_list_the_error_says_what_to_do() -> None:
    with pytest.raises(SplitError, match=r"has no validation list of split 1 .*validation: groups"):
        make_split(spread(), SplitSpec(validation="official"))


def test_an_unused_official_validation_list_is_noted() -> None:
    split = make_split([*spread(), *official(("Run", "v", "validation"))], SplitSpec())
    assert "1 clips of the official validation list are not used" in split.notes
    assert not set(split.validation) & {"Run/g01_c00"}


def test_a_source_in_train_and_test_of_different_classes_is_noted_and_not_held_out() -> None:
    clips = official(("Run", "z", "train"), ("Run", "a", "train"), ("Run", "b", "train"), ("Walk", "z", "test"))
    split = make_split(clips, SplitSpec())
    assert split.validation == (clips[2].id,)
    assert "1 sources are on the official train list of one class and on the test list of another" in split.notes[0]


def test_holding_out_a_shared_source_never_empties_another_class() -> None:
    clips = official(("Run", "a", "train"), ("Run", "z", "train"), ("Walk", "z", "train"))
    split = make_split(clips, SplitSpec())
    assert split.validation == (clips[0].id,)
    assert split.notes == ("no validation clips of Walk: one group only",)


def test_a_set_without_test_list_has_an_empty_one() -> None:
    assert make_split(spread(), SplitSpec()).test == ()


OFFICIAL = st.lists(
    st.tuples(st.sampled_from(["Run", "Walk"]), st.integers(1, 8), st.sampled_from(["train", "train", "test"])),
    min_size=1,
    max_size=40,
)
SPECS = st.one_of(
    st.builds(SplitSpec, held_out=st.sampled_from(["1of6", "1of2"]), split_seed=st.none() | st.integers(0, 3)),
    st.builds(SplitSpec, validation=st.just("kfold"), folds=st.just(3), fold=st.integers(1, 3)),
)


@given(OFFICIAL, SPECS)
def test_validation_never_shares_a_source_with_fit_or_test(
    drawn: list[tuple[str, int, Subset]], spec: SplitSpec
) -> None:
    clips = official(*((name, f"s{group}", side) for name, group, side in drawn))
    group = {each.id: each.group for each in clips}
    try:
        split = make_split(clips, spec)
    except SplitError:
        return
    fit, validation, test = ({group[i] for i in ids} for ids in (split.fit, split.validation, split.test))
    assert not validation & (fit | test)
    assert len(split.fit) + len(split.validation) == sum(side == "train" for _, _, side in drawn)
