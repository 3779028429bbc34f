"""Decoding: true frame counts, exact frames, and a verdict on whatever is broken."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from data.errors import VideoError
from data.reading.images import encode_jpeg
from data.reading.video import decode_frames, inspect_video, measure_video, scaled_size
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving

from ..encoded import decode_video

KNOWN = {
    "v_SoccerJuggling_g23_c01.avi": (240, 320, 240),
    "v_SoccerJuggling_g24_c01.avi": (251, 320, 240),
    "mmaction2_test.avi": (164, 320, 240),
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": (72, 560, 240),
    "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": (74, 320, 240),
    "TrumanShow_wave_f_nm_np1_fr_med_26.avi": (48, 432, 240),
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": (83, 320, 240),
    "R6llTwEh07w.mp4": (303, 340, 256),
    "SOX5yA1l24A.mp4": (332, 340, 256),
    "WUzgd7C1pWA.mp4": (327, 340, 256),
    "mmaction2_demo.mp4": (280, 340, 256),
    "mmaction2_part_0.mp4": (32, 340, 256),
    "mmaction2_test.mp4": (300, 340, 256),
    "mmaction2_test_video_structuralize.mp4": (300, 426, 240),
}
"""Decodable frames, width and height of real clips, as two independent decoders count them."""


@pytest.mark.parametrize("name", KNOWN)
def test_real_clips_have_their_known_frame_counts(shared_data: Path, name: str) -> None:
    measured = measure_video(shared_data / "real_clips" / name)
    assert measured.status == "ok"
    assert (measured.n_frames, measured.width, measured.height) == KNOWN[name]


@pytest.mark.parametrize("name", KNOWN)
def test_another_decoder_counts_the_same_frames(shared_data: Path, name: str) -> None:
    capture = cv2.VideoCapture(str(shared_data / "real_clips" / name))
    count = 0
    while capture.grab():
        count += 1
    assert count == KNOWN[name][0]


def test_header_counts_are_not_trusted(shared_data: Path) -> None:
    facts = inspect_video(shared_data / "real_clips" / "RATRACE_wave_f_nm_np1_fr_goo_37.avi")
    assert (facts.header_frames, facts.n_frames) == (73, 72)


def test_frames_are_those_of_a_plain_sequential_decode(shared_data: Path) -> None:
    path = shared_data / "real_clips" / "TrumanShow_wave_f_nm_np1_fr_med_26.avi"
    with av.open(str(path), metadata_errors="replace") as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(decode_video(path), np.stack(plain))


def test_shrinking_averages_areas(shared_data: Path) -> None:
    path = shared_data / "real_clips" / "v_SoccerJuggling_g23_c01.avi"
    full = next(decode_frames(path)).astype(np.float64)
    half = next(decode_frames(path, short_side=120))
    assert half.shape == (120, 160, 3)
    # The chroma planes are shrunk on their own, so this holds within a few grey levels only.
    averaged = full.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert np.abs(averaged - half).mean() < 2


def test_an_encoded_clip_decodes_to_its_frames(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = np.stack([np.tile(ramp[None, :, None], (48, 1, 3)) // (t + 1) for t in range(15)])
    write_video(tmp_path / "a.avi", frames)
    decoded = decode_video(tmp_path / "a.avi")
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 3
    facts = inspect_video(tmp_path / "a.avi")
    assert (facts.codec, facts.fps, facts.header_frames) == ("mpeg4", 25.0, 15)
    assert b"XVID" in (tmp_path / "a.avi").read_bytes()[:512]


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), short_side=st.integers(16, 512))
def test_scaling_keeps_the_aspect_and_never_enlarges(width: int, height: int, short_side: int) -> None:
    new_width, new_height = scaled_size(width, height, short_side)
    assert min(new_width, new_height) == min(width, height, short_side)
    assert new_width <= width
    assert new_height <= height
    ratio = min(1, short_side / min(width, height))
    assert abs(new_width - width * ratio) <= 0.5
    assert abs(new_height - height * ratio) <= 0.5


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.avi"
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    write_video(path, noise)
    return path


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    assert measure_video(tmp_path / "no.avi").status == "missing"


def test_a_file_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    assert measure_video(tmp_path / "empty.avi").status == "empty"


def test_a_cut_avi_is_truncated(sound: Path) -> None:
    content = sound.read_bytes()
    sound.write_bytes(content[: len(content) // 2])
    measured = measure_video(sound)
    assert measured.status == "truncated"
    assert f"{len(content) - len(content) // 2} bytes early" in measured.note


def test_an_avi_that_lost_frames_but_not_bytes_is_truncated(sound: Path) -> None:
    content = bytearray(sound.read_bytes())
    middle = len(content) // 2
    content[middle:] = bytes(len(content) - middle)
    sound.write_bytes(content)
    measured = measure_video(sound)
    assert measured.status in {"truncated", "corrupt"}
    assert measured.note


def test_text_under_a_video_name_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "text.avi"
    path.write_text("this is not a video\n" * 100)
    measured = measure_video(path)
    assert measured.status == "corrupt"
    assert str(path) in measured.note


def test_a_playlist_cannot_make_the_decoder_read_other_files(sound: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "list.avi"
    playlist.write_text(f"ffconcat version 1.0\nfile {sound.name}\n")
    assert measure_video(playlist).status == "corrupt"


def test_one_frame_is_too_short(tmp_path: Path) -> None:
    write_video(tmp_path / "one.avi", np.zeros((1, 48, 64, 3), np.uint8))
    assert measure_video(tmp_path / "one.avi").status == "short"


def test_decoding_a_file_that_is_not_a_video_raises_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.avi").write_bytes(b"RIFF")
    with pytest.raises(VideoError, match=r"x\.avi cannot be opened"):
        decode_video(tmp_path / "x.avi")


def test_a_name_full_of_shell_characters_is_only_a_name(sound: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a [b] (c) & d;e#f!$(g) 'h'.avi"
    sound.rename(odd)
    assert measure_video(odd).n_frames == 30


def encode(path: Path, pictures: np.ndarray, codec: str, *, times: list[int] | None = None, **options: str) -> None:
    """Encode frames (T, H, W, 3), shown at `times` in fortieths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=40, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 40)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def assert_same_pictures(path: Path, pictures: np.ndarray) -> None:
    decoded = decode_video(path)
    assert decoded.shape == pictures.shape
    nearest = [np.abs(pictures.astype(int) - frame).mean(axis=(1, 2, 3)).argmin() for frame in decoded]
    assert nearest == list(range(len(pictures)))
    measured = measure_video(path)
    assert (measured.status, measured.n_frames) == ("ok", len(pictures))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_come_in_the_order_they_are_shown_in_with_b_frames(tmp_path: Path, codec: str) -> None:
    pictures = moving(25, 48, 64)
    encode(tmp_path / "b.mp4", pictures, codec, bf="2")
    with av.open(str(tmp_path / "b.mp4")) as container:
        types = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert "B" in types
    assert_same_pictures(tmp_path / "b.mp4", pictures)


def test_a_variable_rate_neither_drops_nor_repeats_frames(tmp_path: Path) -> None:
    pictures = moving(20, 48, 64)
    gaps = np.random.default_rng(0).integers(1, 30, 20).cumsum()
    encode(tmp_path / "v.mp4", pictures, "libx264", times=[int(t) for t in gaps])
    assert_same_pictures(tmp_path / "v.mp4", pictures)


@pytest.mark.parametrize("size", [(47, 65), (1, 1), (1, 64), (33, 2)])
def test_odd_sizes_decode_to_their_last_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    pictures = moving(5, *size)
    encode(tmp_path / "o.mp4", pictures, "libx264", qp="1")
    decoded = decode_video(tmp_path / "o.mp4")
    assert np.abs(decoded.astype(int) - pictures).max() < 16
    assert measure_video(tmp_path / "o.mp4").width == size[1]
    assert decode_video(tmp_path / "o.mp4", short_side=16).shape[1:3] == scaled_size(size[1], size[0], 16)[::-1]


def test_a_size_that_changes_in_the_middle_is_scaled_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "change.avi"
    colour = np.array([200, 60, 30], np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(10):
            height, width = (48, 64) if number < 5 else (90, 70)
            packet = av.Packet(encode_jpeg(np.full((height, width, 3), colour), 95))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            container.mux(packet)
    measured = measure_video(path)
    assert (measured.status, measured.n_frames, measured.width, measured.height) == ("ok", 10, 64, 48)
    decoded = decode_video(path)
    assert decoded.shape == (10, 48, 64, 3)
    assert np.abs(decoded.astype(int) - colour).max() < 8


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_container_named_as_another_is_decoded_by_its_content(tmp_path: Path, codec: str) -> None:
    encode(tmp_path / "real.mp4", moving(8, 48, 64), codec)
    (tmp_path / "real.mp4").rename(tmp_path / "named.avi")
    assert measure_video(tmp_path / "named.avi").n_frames == 8


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv", "webm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_cut_video_is_reported_or_has_the_frames_it_claims(tmp_path: Path, suffix: str, share: float) -> None:
    codec = {"avi": "mpeg4", "mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9"}[suffix]
    path = tmp_path / f"cut.{suffix}"
    encode(path, moving(40, 48, 64), codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    measured = measure_video(path)
    if measured.status == "ok":
        assert len(decode_video(path)) == measured.n_frames
    else:
        assert measured.status in {"truncated", "corrupt", "short"}
        assert measured.note
