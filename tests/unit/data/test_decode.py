"""Decoding: true frame counts, exact frames, and a verdict on whatever is broken."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.decode import decode_frames, decode_video, inspect_video, measure_video, scaled_size
from data.errors import VideoError
from data.synthetic import write_video

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


def test_decoding_what_is_no_video_raises_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.avi").write_bytes(b"RIFF")
    with pytest.raises(VideoError, match=r"x\.avi cannot be opened"):
        decode_video(tmp_path / "x.avi")


def test_a_name_full_of_shell_characters_is_only_a_name(sound: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a [b] (c) & d;e#f!$(g) 'h'.avi"
    sound.rename(odd)
    assert measure_video(odd).n_frames == 30
