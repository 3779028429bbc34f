"""Frames in the order of their numbers, and the one that is missing named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DatasetFormatError, VideoError
from data.reading.numbering import Pattern, in_order


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0")), st.integers(0, 9), st.integers(0, 10**7), st.text()
)
def test_a_pattern_names_what_printf_does(prefix: str, width: int, number: int, suffix: str) -> None:
    text = prefix.replace("%", "%%") + f"%0{width}d" + suffix.replace("%", "%%")
    pattern = Pattern.parse(text)
    assert pattern.name(number) == text % number
    assert pattern.number(pattern.name(number)) == number


@pytest.mark.parametrize("text", ["img.jpg", "%05d_%05d.jpg", "%%05d.jpg", "%s.jpg"])
def test_a_pattern_without_its_one_number_is_refused(text: str) -> None:
    with pytest.raises(DatasetFormatError, match="write it like"):
        Pattern.parse(text)


@pytest.mark.parametrize("name", ["flow_x_00001.jpg", "img_001.jpg", "img_0000a.jpg", "img_00001.png", "img_.jpg"])
def test_other_names_have_no_number(name: str) -> None:
    assert Pattern.parse("img_%05d.jpg").number(name) is None


def test_natural_order_counts() -> None:
    names = [f"frame{number}.jpg" for number in range(1, 13)]
    shuffled = sorted(names, key=lambda name: name[::-1])
    assert in_order(shuffled, "") == in_order(shuffled, "frame%d.jpg") == names


@pytest.mark.parametrize("pattern", ["", "img_%05d.jpg"])
def test_a_missing_number_is_named(pattern: str) -> None:
    names = [f"img_{number:05d}.jpg" for number in (1, 2, 3, 5, 6)]
    with pytest.raises(VideoError, match=r"frame img_00004\.jpg is missing between") as raised:
        in_order(names, pattern)
    assert raised.value.status == "truncated"


@pytest.mark.parametrize(
    "names",
    [["a.jpg", "b.jpg", "d.jpg"], ["0.jpg", "5.jpg", "10.jpg"], ["1.jpg", "17.jpg", "90.jpg"], ["1a.jpg", "4b.jpg"]],
)
def test_names_that_do_not_count_by_one_have_no_gaps(names: list[str]) -> None:
    assert in_order(reversed(names), "") == names
