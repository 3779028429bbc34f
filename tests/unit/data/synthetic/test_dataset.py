"""The generated set: single frames say nothing, order says everything, and the files are real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import DatasetError, InvalidSpecError, make_demo_dataset
from data.reading.video import measure_video
from data.seeding import generator
from data.synthetic import motion
from data.synthetic.dataset import DemoClip, DemoSettings, demo_clips, held_out_groups, render_clip
from data.synthetic.motion import MOTIONS, Scene, background_texture, render

from ..encoded import decode_video

SMALL: dict[str, Any] = {"groups": 3, "clips_per_group": 1, "frames": 6, "size": (32, 24)}


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = files(make_demo_dataset(tmp_path / "a", **SMALL))
    assert first == files(make_demo_dataset(tmp_path / "b", **SMALL))
    other = files(make_demo_dataset(tmp_path / "c", seed=1, **SMALL))
    assert other.keys() == first.keys()
    videos = [name for name in first if name.endswith(".avi")]
    assert len(videos) == 18
    assert all(first[name] != other[name] for name in videos)


def test_layout_and_lists_are_those_of_ucf101(tiny_root: Path) -> None:
    lists = tiny_root / "annotations" / "ucf101_splits"
    classes = (lists / "classInd.txt").read_bytes()
    assert classes == b"1 SlideLeft\n2 SlideRight\n3 Grow\n4 Shrink\n"
    assert (lists / "testlist01.txt").read_text().splitlines()[:3] == [
        "SlideLeft/v_SlideLeft_g01_c01.avi",
        "SlideLeft/v_SlideLeft_g01_c02.avi",
        "SlideRight/v_SlideRight_g01_c01.avi",
    ]
    train = (lists / "trainlist01.txt").read_text().splitlines()
    assert train[-1] == "Shrink/v_Shrink_g03_c02.avi 4"
    named = {line.split()[0] for line in train}
    named.update((lists / "testlist01.txt").read_text().split())
    on_disk = {str(p.relative_to(tiny_root / "videos")) for p in tiny_root.rglob("*.avi")}
    assert named == on_disk
    assert len(on_disk) == 24


@pytest.mark.parametrize("groups", [3, 4, 5, 10, 25, 99])
def test_test_groups_of_the_three_splits_are_disjoint(groups: int) -> None:
    blocks = [set(held_out_groups(groups, split)) for split in (1, 2, 3)]
    assert all(blocks)
    assert len(set.union(*blocks)) == sum(map(len, blocks)) <= groups
    assert max(max(block) for block in blocks) <= groups
    if groups == 25:
        assert blocks == [set(range(1, 8)), set(range(8, 15)), set(range(15, 22))]


def test_files_decode_to_what_was_rendered(tiny_root: Path) -> None:
    settings = DemoSettings(
        classes=("SlideLeft", "SlideRight", "Grow", "Shrink"),
        groups=3,
        clips_per_group=2,
        frames=(20, 28),
        size=(64, 48),
        seed=0,
    )
    lengths = set()
    for clip in demo_clips(settings):
        path = tiny_root / "videos" / clip.file
        rendered = render_clip(settings, clip)
        measured = measure_video(path)
        assert (measured.codec, measured.n_frames) == ("mpeg4", len(rendered))
        lengths.add(len(rendered))
        assert np.abs(decode_video(path).astype(int) - rendered).mean() < 8
    assert min(lengths) >= 20
    assert max(lengths) <= 28
    assert len(lengths) > 3


OPPOSED = [
    ("SlideLeft", "SlideRight"),
    ("SlideUp", "SlideDown"),
    ("SpinClockwise", "SpinCounter"),
    ("Grow", "Shrink"),
]


@pytest.mark.parametrize(("name", "opposed"), OPPOSED)
def test_reversing_time_swaps_opposed_classes(name: str, opposed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "_NOISE", 0.0)
    rng = generator("reverse", name)
    background = background_texture(rng, width=64, height=48)
    scene, forward, n = Scene.draw(rng, width=64, height=48), MOTIONS[name], 12
    steps = (n - 1) * scene.speed
    end = replace(
        scene,
        position=(
            scene.position[0] + forward.slide[0] * 64 * steps,
            scene.position[1] + forward.slide[1] * 48 * steps,
        ),
        angle=scene.angle + 2 * np.pi * forward.spin * steps,
        phase=scene.phase + forward.growth * steps,
        drift=(-scene.drift[0], -scene.drift[1]),
        drift_start=(
            scene.drift_start[0] + scene.drift[0] * (n - 1),
            scene.drift_start[1] + scene.drift[1] * (n - 1),
        ),
    )
    backwards = render(scene, forward, background, n_frames=n, rng=rng)[::-1]
    other = render(end, MOTIONS[opposed], background, n_frames=n, rng=rng)
    same = render(end, forward, background, n_frames=n, rng=rng)
    assert np.mean(backwards != other) < 0.01  # a pixel at an edge may round the other way
    assert np.mean(backwards[1:] != same[1:]) > 0.02


def frame_statistics(frame: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return what a model could see in one frame: levels, spread, place and texture."""
    pixels = frame.astype(np.float64)
    levels = pixels.mean(axis=(0, 1)) - background.mean(axis=(0, 1))
    spread = pixels.var(axis=(0, 1))
    sprite = np.abs(pixels - background.mean(axis=(0, 1))).sum(axis=2)
    sprite /= sprite.sum()
    columns = sprite.sum(axis=0).reshape(4, -1).sum(axis=1)
    rows = sprite.sum(axis=1).reshape(4, -1).sum(axis=1)
    spectrum = np.abs(np.fft.fft2(pixels.mean(axis=2)))
    bands = [spectrum[1 : 2**k, 1 : 2**k].mean() for k in (1, 2, 3)]
    halves = [sprite[:, :16].sum() - sprite[:, 16:].sum(), sprite[:12].sum() - sprite[12:].sum()]
    return np.concatenate([levels, spread, columns, rows, bands, halves])


def largest_difference(values: np.ndarray) -> float:
    """Return the largest distance, in standard errors, of a class's mean from that of all.

    Args:
        values: (classes, clips, statistics).
    """
    n_clips = values.shape[1]
    everything = values.reshape(-1, values.shape[2])
    error = everything.std(axis=0) / np.sqrt(n_clips)
    return float(np.max(np.abs(values.mean(axis=1) - everything.mean(axis=0)) / error))


def statistics_by_class(clips_per_group: int) -> np.ndarray:
    """Return (classes, clips, statistics) of the last frame of every clip of a set of all classes."""
    settings = DemoSettings(
        classes=tuple(MOTIONS),
        groups=8,
        clips_per_group=clips_per_group,
        frames=(10, 10),
        size=(32, 24),
        seed=5,
    )
    backgrounds = {g: background_texture(generator("group", 5, g), width=32, height=24) for g in range(1, 9)}
    values: dict[str, list[np.ndarray]] = {name: [] for name in MOTIONS}
    for clip in demo_clips(settings):
        # The last frame: the middle of a clip would hide a motion that runs away from its start.
        frame = render_clip(settings, clip)[-1]
        values[clip.class_name].append(frame_statistics(frame, backgrounds[clip.group]))
    return np.array(list(values.values()))


def test_single_frame_statistics_carry_no_class_information() -> None:
    # Of 200 differences chance puts one above 4 in one set of 80.
    assert largest_difference(statistics_by_class(12)) < 4


def test_the_statistics_would_show_a_fixed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Scene.draw

    def centred(rng: np.random.Generator, *, width: int, height: int) -> Scene:
        return replace(draw(rng, width=width, height=height), position=(width / 2, height / 2))

    monkeypatch.setattr(Scene, "draw", centred)
    assert largest_difference(statistics_by_class(4)) > 6


def test_groups_differ_in_background_and_share_it_between_classes() -> None:
    settings = DemoSettings(
        classes=("SlideLeft", "Grow"),
        groups=4,
        clips_per_group=6,
        frames=(2, 2),
        size=(32, 24),
        seed=0,
    )

    def colour(class_name: str, group: int) -> np.ndarray:
        frames = [render_clip(settings, DemoClip(class_name=class_name, group=group, number=n))[0] for n in range(1, 7)]
        colours: np.ndarray = np.median(np.stack(frames), axis=(0, 1, 2))
        return colours

    for group in range(1, 5):
        own = np.abs(colour("SlideLeft", group) - colour("Grow", group)).max()
        others = [np.abs(colour("SlideLeft", group) - colour("Grow", g)).max() for g in range(1, 5) if g != group]
        assert own < min(others)


def test_a_finished_set_is_kept_and_another_is_not_overwritten(tmp_path: Path) -> None:
    root = make_demo_dataset(tmp_path / "set", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make_demo_dataset(root, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(DatasetError, match="already holds something else"):
        make_demo_dataset(root, seed=1, **SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is a file"):
        make_demo_dataset(tmp_path / "file", **SMALL)


def test_a_failed_set_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("data.synthetic.dataset.write_video", fail)
    with pytest.raises(OSError, match="no space left"):
        make_demo_dataset(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("SlideLeft", "Jump")}, r"no motion is called \['Jump'\]"),
        ({"classes": ("SlideLeft",)}, "at least 2 motions"),
        ({"classes": ("Grow", "Grow")}, "each once"),
        ({"groups": 2}, "need at least 3"),
        ({"clips_per_group": 0}, r"1\.\.99"),
        ({"frames": (9, 3)}, "frames is"),
        ({"size": (33, 24)}, "must be even"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        make_demo_dataset(tmp_path / "set", **(SMALL | change))
