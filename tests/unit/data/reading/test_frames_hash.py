"""The hash of decoded frames: the same whatever the file, another as soon as one pixel or the order is."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from data.reading.frames_hash import FramesHash
from data.reading.video import measure_video
from data.synthetic.dataset import write_video

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 16, 48, 3), dtype=np.uint8)


def repacked(source: Path, target: Path) -> Path:
    """Return a file with the packets of a video, copied without decoding them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def test_a_repacked_video_is_the_same_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", FRAMES)
    # The first copy loses the tag XVID, for which FFmpeg has an inverse transform of its own.
    original = measure_video(repacked(tmp_path / "a.avi", tmp_path / "b.avi"))
    copy = measure_video(repacked(tmp_path / "b.avi", tmp_path / "c.mkv"))
    assert original.sha1 != copy.sha1
    assert original.frames_hash == copy.frames_hash
    assert original.n_frames == copy.n_frames == 5


def test_another_order_is_another_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", FRAMES)
    write_video(tmp_path / "b.avi", FRAMES[::-1])
    assert measure_video(tmp_path / "a.avi").frames_hash != measure_video(tmp_path / "b.avi").frames_hash


@pytest.mark.parametrize("changed", [FRAMES[::-1], FRAMES[:4], FRAMES ^ 1, FRAMES.reshape(5, 48, 16, 3)])
def test_any_change_changes_the_hash(changed: np.ndarray) -> None:
    def hashed(frames: np.ndarray) -> str:
        digest = FramesHash()
        for frame in frames:
            digest.update(frame)
        return digest.hexdigest()

    assert hashed(changed) != hashed(FRAMES)
    assert hashed(FRAMES[:, :, ::2].copy()) == hashed(FRAMES[:, :, ::2])
