"""Cut and damaged videos are named in every container, and sound ones that look odd are not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from data.reading.endings import cut_short
from data.reading.video import measure_video
from tests.unit.data.encoded import decode_video, moving

CODECS = {
    "webm": "libvpx-vp9",
    "mkv": "libx264",
    "mpg": "mpeg2video",
    "ts": "libx264",
    "m2ts": "libx264",
    "mp4": "libx264",
    "avi": "mpeg4",
    "flv": "flv",
}
N_FRAMES = 40


class Pipe:
    """A file that cannot be rewound: all that a muxer has when it writes to another process."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def encoded(
    path: Path,
    *,
    codec: str = "",
    times: list[int] | None = None,
    piped: str = "",
    sound: int = 0,
    index_first: bool = False,
) -> Path:
    """Encode frames at 25 per second, with `sound` seconds of silence beside them."""
    pipe, options = Pipe(), {"movflags": "faststart"} if index_first else {}
    with av.open(cast("str", pipe) if piped else str(path), "w", format=piped or None, options=options) as container:
        stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt, stream.codec_context.gop_size = 48, 64, "yuv420p", 12
        stream.codec_context.thread_count = 1  # more would not always write the same bytes
        voice = container.add_stream("mp2", rate=16000) if sound else None
        for number, picture in enumerate(moving(N_FRAMES, 48, 64)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if isinstance(voice, av.AudioStream):
            for start in range(0, sound * 16000, 1152):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                silence.sample_rate, silence.pts, silence.time_base = 16000, start, Fraction(1, 16000)
                container.mux(voice.encode(silence))
            container.mux(voice.encode())
    if piped:
        path.write_bytes(pipe.content)
    return path


@pytest.mark.parametrize("suffix", CODECS)
def test_a_whole_video_is_sound(tmp_path: Path, suffix: str) -> None:
    path = encoded(tmp_path / f"a.{suffix}")
    assert cut_short(path) is None
    measured = measure_video(path)
    assert (measured.status, measured.n_frames, measured.note) == ("ok", N_FRAMES, "")


@pytest.mark.parametrize("suffix", [suffix for suffix in CODECS if suffix != "flv"])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.75, 0.97])
def test_a_cut_video_is_named_in_every_container(tmp_path: Path, suffix: str, share: float) -> None:
    """But for a transport stream that ends between two packets: it looks like a shorter one."""
    path = encoded(tmp_path / f"a.{suffix}", index_first=suffix == "mp4")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share) // 188 * 188 // 192 * 192 + 7])
    measured = measure_video(path)
    assert measured.status in {"truncated", "corrupt"} or len(decode_video(path)) == N_FRAMES
    assert measured.status == "ok" or measured.note


@pytest.mark.parametrize("suffix", ["mpg", "ts"])
@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_no_frames(tmp_path: Path, suffix: str, seed: int) -> None:
    path = encoded(tmp_path / f"a.{suffix}")
    whole = decode_video(path)
    content = bytearray(path.read_bytes())
    for at in np.random.default_rng(seed).integers(len(content) // 3, 2 * len(content) // 3, 40):
        content[at] ^= 8
    path.write_bytes(content)
    measured = measure_video(path)
    if measured.status == "ok":
        assert np.abs(decode_video(path).astype(int) - whole).max() == 0


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mpg"])
@pytest.mark.parametrize("change", ["lost", "zeros"])
def test_bytes_lost_in_the_middle_are_noticed(tmp_path: Path, suffix: str, change: str) -> None:
    path = encoded(tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    middle, count = len(content) // 2, min(1200, len(content) // 8)
    path.write_bytes(content[:middle] + bytes(count if change == "zeros" else 0) + content[middle + count :])
    measured = measure_video(path)
    assert measured.status in {"truncated", "corrupt"}, measured
    path.write_bytes(content + bytes(5000))
    assert measure_video(path).status == "ok", "zeros after the end are no damage"


@pytest.mark.parametrize("box", [b"minf", b"stbl", b"stsd"])
def test_an_mp4_that_is_cut_in_its_header_is_named(tmp_path: Path, box: bytes) -> None:
    path = encoded(tmp_path / "a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(box)])
    assert measure_video(path).status == "corrupt"
    assert "unknown codec, or its header is damaged" in measure_video(path).note


def test_frames_lost_in_the_middle_of_an_mp4_are_noticed(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mp4", index_first=True)
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    measured = measure_video(path)
    assert measured.status in {"truncated", "corrupt"}
    assert measured.note


@pytest.mark.parametrize(
    ("piped", "codec"),
    [("avi", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx-vp9"), ("webm", "libvpx"), ("mpeg", "mpeg2video")],
)
def test_a_video_that_was_written_to_a_pipe_is_sound(tmp_path: Path, piped: str, codec: str) -> None:
    path = encoded(tmp_path / "a", piped=piped, codec=codec)
    measured = measure_video(path)
    assert (measured.status, measured.n_frames) == ("ok", N_FRAMES)


@pytest.mark.parametrize("lacking", ["a byte", "the index"])
def test_an_avi_that_lacks_no_frame_is_sound(tmp_path: Path, lacking: str) -> None:
    path = encoded(tmp_path / "a.avi")
    content = path.read_bytes()
    path.write_bytes(content[:-1] if lacking == "a byte" else content[: content.rindex(b"idx1")])
    assert cut_short(path) is not None
    measured = measure_video(path)
    assert (measured.status, measured.n_frames) == ("ok", N_FRAMES)


def test_an_avi_with_empty_chunks_for_repeated_frames_is_sound(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.avi", times=[n + 2 * (n // 4) for n in range(N_FRAMES)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 1.2 * N_FRAMES
    measured = measure_video(path)
    assert (measured.status, measured.n_frames) == ("ok", N_FRAMES)


def test_an_mp4_that_was_cut_without_encoding_it_again_is_sound(tmp_path: Path) -> None:
    whole, part = encoded(tmp_path / "a.mp4"), tmp_path / "part.mp4"
    with av.open(str(whole)) as source, av.open(str(part), "w") as target:
        read = source.streams.video[0]
        written = target.add_stream_from_template(read)
        assert read.time_base is not None
        frame = int(1 / (25 * read.time_base))
        for packet in source.demux(read):
            if packet.dts is not None and packet.pts is not None and packet.pts >= 12 * frame:
                # Pictures before 0 are needed to decode the others, and an edit list hides them.
                packet.pts, packet.dts, packet.stream = packet.pts - 20 * frame, packet.dts - 20 * frame, written
                target.mux(packet)
    with av.open(str(part)) as container:
        assert container.streams.video[0].frames == 28
    measured = measure_video(part)
    assert (measured.status, measured.n_frames) == ("ok", 20)
    np.testing.assert_array_equal(decode_video(part), decode_video(whole)[20:])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "avi"])
def test_sound_that_goes_on_does_not_make_the_video_short(tmp_path: Path, suffix: str) -> None:
    path = encoded(tmp_path / f"a.{suffix}", sound=4)
    measured = measure_video(path)
    assert (measured.status, measured.n_frames) == ("ok", N_FRAMES)


def test_a_segment_is_judged_by_its_own_frames(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert measure_video(path).status == "truncated"
    assert measure_video(path, start=0, end=8).status == "ok"
    assert measure_video(path, start=0, end=30).status == "truncated"
