"""Who serves which study: evenly, without moving more than that takes, and the same whoever works it out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hpo.service.sharing import shares

NAMES = st.sampled_from(["a", "b", "c", "d"])
OWNERS = st.dictionaries(st.integers(1, 30), st.none() | NAMES, max_size=20)
FAILED = st.dictionaries(st.integers(1, 30), st.sets(NAMES), max_size=20)


@given(OWNERS, st.dictionaries(NAMES, st.just(value=True), min_size=1))
def test_all_are_served_and_those_that_live_have_as_many_as_each_other(
    owners: dict[int, str | None], optimizers: dict[str, bool]
) -> None:
    owners = {study: owner if owner in optimizers else None for study, owner in owners.items()}
    got = shares(owners, optimizers)
    assert got.keys() == owners.keys()
    counts = Counter({name: 0 for name in optimizers}) + Counter(got.values())
    sizes = [counts[name] for name in optimizers]
    assert max(sizes) - min(sizes) <= 1
    surplus = sum(max(0, size - max(sizes)) for size in Counter(filter(None, owners.values())).values())
    lacking = sum(max(0, min(sizes) - Counter(owners.values())[name]) for name in optimizers)
    moved = sum(owner is not None and got[study] != owner for study, owner in owners.items())
    assert surplus <= moved <= max(surplus, lacking)


@given(OWNERS, st.dictionaries(NAMES, st.booleans()), FAILED)
def test_once_all_do_as_they_should_nothing_moves_any_more(
    owners: dict[int, str | None], optimizers: dict[str, bool], failed: dict[int, set[str]]
) -> None:
    got = shares(owners, optimizers, failed)
    assert shares(got, optimizers, failed) == got
    assert shares(dict(reversed(owners.items())), dict(reversed(optimizers.items())), failed) == got


@given(OWNERS, st.dictionaries(NAMES, st.booleans()), FAILED)
def test_nobody_gets_a_study_that_failed_there_while_another_has_time(
    owners: dict[int, str | None], optimizers: dict[str, bool], failed: dict[int, set[str]]
) -> None:
    for study, owner in shares(owners, optimizers, failed).items():
        able = {name for name, is_ready in optimizers.items() if is_ready} - failed.get(study, set())
        if owners[study] is None:
            assert owner in able or not able
        elif owner != owners[study]:
            assert owner in able


def test_a_study_that_failed_at_one_stays_and_another_moves_in_its_place() -> None:
    owners = {1: "a", 2: "a", 3: "a", 4: "a"}
    assert shares(owners, {"a": True, "b": True}, {4: {"b"}}) == {1: "a", 2: "b", 3: "b", 4: "a"}
    assert shares({1: "a", 2: "a", 3: None}, {"a": True, "b": True}, {3: {"b"}}) == {1: "a", 2: "b", 3: "a"}


def test_a_study_that_failed_everywhere_is_given_out_as_any_other() -> None:
    assert shares({1: "a", 2: None}, {"a": True, "b": True}, {2: {"a", "b"}}) == {1: "a", 2: "b"}


@given(OWNERS, st.dictionaries(NAMES, st.booleans()))
def test_who_is_busy_gets_none_and_who_is_unknown_keeps_all(
    owners: dict[int, str | None], optimizers: dict[str, bool]
) -> None:
    for study, owner in shares(owners, optimizers).items():
        if not optimizers.get(owner):
            assert owners[study] == owner
    got = shares(owners, optimizers)
    assert all(got[study] == owner for study, owner in owners.items() if owner is not None and owner not in optimizers)


def test_the_newest_studies_move() -> None:
    assert shares({1: "a", 2: "a", 3: "a", 4: "a"}, {"a": True, "b": True}) == {1: "a", 2: "a", 3: "b", 4: "b"}
