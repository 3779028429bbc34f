"""Optical flow: known motions, signs and axes, and the way it is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import DatasetSpec
from data.errors import FlowError
from data.flow.compute import FLOW_BOUND, ComputedFlow, decode_flow, encode_flow, flow_method, resize_flow
from data.index.records import FlowFiles, Index
from data.preparation.prepare import kept_frames, prepare
from tests.unit.data.encoded import index_of, listed, moving, write_frames

METHODS = [name for name in get_args(ComputedFlow) if name != "raft"]
Field = np.ndarray[Any, np.dtype[np.float32]]


def texture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a smooth random picture (H, W, 3) without a direction or a period."""
    noise = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2) + cv2.GaussianBlur(noise, (0, 0), 6) * 3
    grey = (smooth - smooth.min()) / np.ptp(smooth) * 255
    return np.dstack([grey.astype(np.uint8)] * 3)


CANVAS = texture(160, 200)


def shifted(right: int, down: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a view (96, 128, 3) of the canvas whose content lies further right and down."""
    return CANVAS[32 - down : 128 - down, 36 - right : 164 - right]


def middle(field: Field) -> Field:
    return field[16:-16, 16:-16]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 3), (-2, 1), (5, -4), (0, 0)])
def test_a_moved_texture_gives_its_motion(name: Any, right: int, down: int) -> None:
    field = middle(flow_method(name)(shifted(0, 0), shifted(right, down)))
    assert field.dtype == np.float32
    np.testing.assert_allclose(np.median(field, axis=(0, 1)), [right, down], atol=0.15)
    assert np.abs(field - [right, down]).mean() < 0.3


@pytest.mark.parametrize("name", METHODS)
def test_a_mirrored_clip_moves_the_other_way_along_x(name: Any) -> None:
    method = flow_method(name)
    field = middle(method(shifted(0, 0), shifted(4, 2)))
    mirrored = middle(method(shifted(0, 0)[:, ::-1].copy(), shifted(4, 2)[:, ::-1].copy()))
    np.testing.assert_allclose(np.median(mirrored - field[:, ::-1] * [-1, 1], axis=(0, 1)), [0, 0], atol=0.1)
    assert np.median(mirrored[..., 0]) == pytest.approx(-4, abs=0.15)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (2, 64), (12, 40), (16, 16), (33, 17)])
def test_small_frames_have_flow(name: Any, size: tuple[int, int]) -> None:
    frames = moving(2, *size)
    field = flow_method(name)(frames[0], frames[1])
    assert field.shape == (*size, 2)
    assert np.isfinite(field).all()


@given(
    st.lists(st.tuples(*[st.floats(-FLOW_BOUND, FLOW_BOUND, width=32)] * 2), min_size=1), st.sampled_from([5.0, 20.0])
)
def test_encoding_is_exact_to_a_step(vectors: list[tuple[float, float]], bound: float) -> None:
    field = np.array(vectors, np.float32) * np.float32(bound / FLOW_BOUND)
    decoded = decode_flow(encode_flow(field, bound), bound)
    assert np.abs(decoded - field).max() <= bound / 255 * 1.0001
    np.testing.assert_array_equal(encode_flow(decoded, bound), encode_flow(field, bound))


def test_the_range_is_that_of_dense_flow() -> None:
    field = np.array([[-20, 20], [-90, 90], [0, 0], [10, -10]], np.float32)
    assert encode_flow(field).tolist() == [[0, 255], [0, 255], [128, 128], [191, 64]]


def test_a_mirrored_byte_is_its_complement() -> None:
    values = np.linspace(-19.9, 19.9, 400, dtype=np.float32)
    field = np.stack([values, values], axis=-1)
    sums = encode_flow(field).astype(int) + encode_flow(-field)
    assert np.abs(sums - 255).max() <= 1


def test_vectors_are_scaled_with_the_picture() -> None:
    y, x = np.mgrid[:40, :60].astype(np.float32)
    field = np.stack([x / 10, y / 20], axis=-1)
    small = resize_flow(field, 30, 10)
    assert small.shape == (10, 30, 2)
    np.testing.assert_allclose(small[..., 0], field.reshape(10, 4, 30, 2, 2)[..., 0].mean((1, 3)) / 2, atol=1e-5)
    np.testing.assert_allclose(small[..., 1], field.reshape(10, 4, 30, 2, 2)[..., 1].mean((1, 3)) / 4, atol=1e-5)
    large = resize_flow(np.full((8, 8, 2), 3, np.float32), 16, 32)
    np.testing.assert_allclose(large[..., 0], 6)
    np.testing.assert_allclose(large[..., 1], 12)


N_FRAMES = 12


@pytest.fixture
def flowing(tmp_path: Path) -> Callable[..., Index]:
    """Make an index of one clip of moving frames with listed flow at twice the size and half the bound."""

    def make(n_pairs: int = N_FRAMES - 1, **changes: Any) -> Index:
        frames = np.stack([shifted(2 * t, -t) for t in range(N_FRAMES)])
        write_frames(tmp_path / "images" / "clip", frames)
        field = np.full((192, 256, 2), 0, np.float32)
        for number in range(1, n_pairs + 1):
            field[:] = number / 2, -number / 4
            encoded = encode_flow(field, 10.0)
            for axis, plane in zip("uv", np.moveaxis(encoded, -1, 0), strict=True):
                write_frames(tmp_path / axis, np.dstack([plane] * 3)[None], name="frame%06d.png", first=number)
        flow = FlowFiles(x="u/frame%06d.png", y="v/frame%06d.png", bound=10.0)
        return index_of(tmp_path, listed("images/clip", id="clip", kind="frames", flow=flow, **changes))

    return make


def stored(index: Index, root: Path, **changes: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    spec = DatasetSpec(**{"name": "ucf101", "root": root, "short_side": 96, "flow": "dis", **changes})
    return prepare(index, spec, root / "cache")["flow"].video("clip")


@pytest.mark.parametrize("name", METHODS)
def test_prepared_flow_is_from_each_frame_to_the_next(flowing: Callable[..., Index], tmp_path: Path, name: str) -> None:
    short_side = 48 if name == "tvl1" else 96
    fields = stored(flowing(), tmp_path, flow=name, short_side=short_side)
    scale = short_side / 96
    assert fields.shape == (N_FRAMES - 1, short_side, int(128 * scale), 2)
    motion = np.median(decode_flow(fields)[:, 12:-12, 12:-12], axis=(1, 2))
    np.testing.assert_allclose(motion, [[2 * scale, -scale]] * (N_FRAMES - 1), atol=0.2)


def test_a_clip_that_stands_still_has_no_flow(tmp_path: Path) -> None:
    write_frames(tmp_path / "still", np.stack([shifted(0, 0)] * 5))
    index = index_of(tmp_path, listed("still", id="clip", kind="frames"))
    for name in METHODS:
        assert set(np.unique(stored(index, tmp_path, flow=name, short_side=32))) <= {127, 128}


def test_flow_stored_as_images_is_nearly_the_same(flowing: Callable[..., Index], tmp_path: Path) -> None:
    index = flowing()
    exact, packed = stored(index, tmp_path, store="raw"), stored(index, tmp_path, store="jpeg")
    assert np.abs(decode_flow(exact) - decode_flow(packed)).mean() < 0.16


def test_flow_of_kept_frames_leads_to_the_next_frame_of_the_video(
    flowing: Callable[..., Index], tmp_path: Path
) -> None:
    index = flowing()
    kept = kept_frames(N_FRAMES, 4)
    assert kept.tolist() == [1, 4, 7, 10]
    for flow in ("dis", "listed"):
        part = stored(index, tmp_path, flow=flow, frames_kept="uniform:4")
        np.testing.assert_array_equal(part, stored(index, tmp_path, flow=flow)[kept[:-1]])


def expected_listed(numbers: list[int]) -> Field:
    """Return what the listed pairs say at half the size they came in."""
    return np.array([(number / 4, -number / 8) for number in numbers], np.float32)


@pytest.mark.parametrize(("n_pairs", "last"), [(12, 11), (11, 11), (10, 10)])
def test_listed_flow_is_scaled_and_its_last_pair_repeated(
    flowing: Callable[..., Index], tmp_path: Path, n_pairs: int, last: int
) -> None:
    fields = decode_flow(stored(flowing(n_pairs), tmp_path, flow="listed"))
    assert fields.shape == (11, 96, 128, 2)
    assert np.ptp(fields, axis=(1, 2)).max() == 0
    wanted = expected_listed([*range(1, 11), last])
    np.testing.assert_allclose(fields[:, 0, 0], wanted, atol=2 * FLOW_BOUND / 255)


def test_listed_flow_of_a_segment_starts_with_the_segment(flowing: Callable[..., Index], tmp_path: Path) -> None:
    fields = decode_flow(stored(flowing(start=3, end=8), tmp_path, flow="listed"))
    np.testing.assert_allclose(fields[:, 0, 0], expected_listed([4, 5, 6, 7]), atol=2 * FLOW_BOUND / 255)


def test_listed_flow_of_the_right_size_is_kept_byte_for_byte(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", moving(4, 32, 40))
    planes = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 40), dtype=np.uint8)
    for axis, images in zip("xy", planes, strict=True):
        write_frames(tmp_path / "clip", np.stack([images] * 3, axis=-1), name=f"flow_{axis}_%05d.png")
    flow = FlowFiles(x="clip/flow_x_%05d.png", y="clip/flow_y_%05d.png")
    index = index_of(tmp_path, listed("clip", id="clip", kind="frames", frame_name="img_%05d.png", flow=flow))
    np.testing.assert_array_equal(stored(index, tmp_path, flow="listed"), np.moveaxis(planes, 0, -1))


def test_a_set_without_flow_has_none_to_be_listed(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", moving(4, 32, 40))
    index = index_of(tmp_path, listed("clip", id="clip", kind="frames"))
    with pytest.raises(FlowError, match="clip came without optical flow; choose a flow that is computed"):
        stored(index, tmp_path, flow="listed")


def test_neighbouring_fields_belong_to_neighbouring_frames() -> None:
    frames = [shifted(0, 0), shifted(1, 0), shifted(4, 0), shifted(4, 2)]
    method = flow_method("dis")
    motions = [np.median(middle(method(a, b)), axis=(0, 1)) for a, b in pairwise(frames)]
    np.testing.assert_allclose(motions, [[1, 0], [3, 0], [0, 2]], atol=0.15)
