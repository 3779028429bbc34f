"""Who serves which study: evenly, without moving more than that takes, and the same whoever works it out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hpo.service.sharing import shares

NAMES = st.sampled_from(["a", "b", "c", "d"])
OWNERS = st.dictionaries(st.integers(1, 30), st.none() | NAMES, max_size=20)


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


@given(OWNERS, st.dictionaries(NAMES, st.booleans()))
def test_once_all_do_as_they_should_nothing_moves_any_more(
    owners: dict[int, str | None], optimizers: dict[str, bool]
) -> None:
    got = shares(owners, optimizers)
    assert shares(got, optimizers) == got
    assert shares(dict(reversed(owners.items())), dict(reversed(optimizers.items()))) == got


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
