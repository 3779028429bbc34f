"""Shares of a batch: every place once, and as many parts for each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data.clips.share import Share


@given(of=st.integers(1, 9), more=st.integers(0, 40), most=st.integers(1, 9))
def test_shares_have_each_place_once_and_are_computed_in_as_many_parts(of: int, more: int, most: int) -> None:
    videos = of + more
    shares = [Share(number, of).places(videos) for number in range(of)]
    assert sorted(place for share in shares for place in share) == list(range(videos))
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1
    parts = {Share(number, of).parts(videos, most) for number in range(of)}
    assert len(parts) == 1
    assert 1 <= parts.pop() <= min(sizes)


@given(of=st.integers(1, 8), each=st.integers(1, 5))
def test_partners_of_mixed_clips_are_in_one_share_where_they_can_be(of: int, each: int) -> None:
    videos = 2 * of * each
    for number in range(of):
        places = Share(number, of).places(videos)
        assert {videos - 1 - place for place in places} == set(places)
