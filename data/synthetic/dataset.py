"""A generated video data set on which motion alone carries the class.

Classes come in pairs (left and right, clockwise and counter-clockwise, growing and shrinking, slow and fast).
Position, angle and scale start at random and wrap around; everything else is drawn per clip or per group
independently of the class. So a single frame has the same distribution in every class. For classes that differ in
direction, a clip played backwards belongs to the other class of the pair. The files are real MPEG-4 (XviD) AVI videos
in the layout and list format of UCF101.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatasetError, InvalidSpecError
from ..parallel import in_threads
from ..progress import Progress
from ..seeding import generator
from .motion import MOTIONS, Scene, background_texture, render

if TYPE_CHECKING:
    from ..arrays import ByteArray

DEFAULT_CLASSES = ("SlideLeft", "SlideRight", "SpinClockwise", "SpinCounter", "Grow", "Shrink")
N_SPLITS = 3
FPS = 25
_TEST_SHARE = 7 / 25
"""Share of the groups in each test list, as in UCF101."""
_SETTINGS_FILE = "demo.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSettings:
    """Everything that determines the bytes of a generated set."""

    classes: tuple[str, ...]
    groups: int
    clips_per_group: int
    frames: tuple[int, int]
    """Shortest and longest clip."""
    size: tuple[int, int]
    """Width and height in pixels."""
    seed: int
    version: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.classes if name not in MOTIONS]
        if unknown:
            raise InvalidSpecError(f"no motion is called {unknown}; choose from {list(MOTIONS)}")
        if len(set(self.classes)) < 2 or len(set(self.classes)) != len(self.classes):
            raise InvalidSpecError("classes must name at least 2 motions, each once")
        if self.groups < N_SPLITS:
            raise InvalidSpecError(f"groups is {self.groups}; three splits need at least 3")
        if self.groups > 99 or not 1 <= self.clips_per_group <= 99:
            raise InvalidSpecError("groups and clips_per_group must be in 1..99")
        if not 2 <= self.frames[0] <= self.frames[1]:
            raise InvalidSpecError(f"frames is {self.frames}; it must be (least >= 2, most)")
        if min(self.size) < 16 or any(side % 2 for side in self.size):
            raise InvalidSpecError(f"size is {self.size}; both sides must be even and at least 16")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoClip:
    """Name of one clip of a generated set."""

    class_name: str
    group: int
    number: int

    @property
    def file(self) -> str:
        """Path below `videos/`, as the official lists spell it."""
        stem = f"v_{self.class_name}_g{self.group:02d}_c{self.number:02d}"
        return f"{self.class_name}/{stem}.avi"


def make_demo_dataset(
    root: Path,
    *,
    classes: Sequence[str] = DEFAULT_CLASSES,
    groups: int = 10,
    clips_per_group: int = 5,
    frames: int | tuple[int, int] = (35, 65),
    size: tuple[int, int] = (80, 64),
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Return `root`, after writing a motion-only data set below it.

    The same arguments give the same bytes. An existing set is kept if it was made with the same arguments. The folder
    gets its name only when it is complete.

    Args:
        classes: names out of `MOTIONS`; labels follow their order.
        groups: groups per class; each has its own background, shared by all classes.
        frames: frames of every clip, or the shortest and the longest.
        size: width and height in pixels.

    Raises:
        InvalidSpecError: an argument is out of range.
        DatasetError: `root` contains other files.
    """
    root = Path(root)
    settings = DemoSettings(
        classes=tuple(classes),
        groups=groups,
        clips_per_group=clips_per_group,
        frames=(frames, frames) if isinstance(frames, int) else (frames[0], frames[1]),
        size=(size[0], size[1]),
        seed=seed,
    )
    if _is_made(root, settings):
        return root
    aside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write_videos(aside / "videos", settings, progress)
        _write_lists(aside / "annotations" / "ucf101_splits", settings)
        (aside / _SETTINGS_FILE).write_text(_settings_text(settings), encoding="utf-8")
        if root.is_dir():
            root.rmdir()  # `_is_made` found it empty
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


def render_clip(settings: DemoSettings, clip: DemoClip) -> ByteArray:
    """Return the frames (T, H, W, 3) of a clip before encoding."""
    names = ("clip", settings.seed, clip.class_name, clip.group, clip.number)
    rng = generator(*names)
    n_frames = int(rng.integers(settings.frames[0], settings.frames[1] + 1))
    width, height = settings.size
    background = background_texture(generator("group", settings.seed, clip.group), width=width, height=height)
    scene = Scene.draw(rng, width=width, height=height)
    return render(scene, MOTIONS[clip.class_name], background, n_frames=n_frames, rng=rng)


def demo_clips(settings: DemoSettings) -> Iterator[DemoClip]:
    """Yield every clip of a set in the order of the official lists."""
    for class_name in settings.classes:
        for group in range(1, settings.groups + 1):
            for number in range(1, settings.clips_per_group + 1):
                yield DemoClip(class_name=class_name, group=group, number=number)


def held_out_groups(groups: int, split: int) -> range:
    """Return the group numbers on the test list of split 1, 2 or 3: consecutive, disjoint blocks."""
    block = min(max(1, round(groups * _TEST_SHARE)), groups // N_SPLITS)
    return range(1 + (split - 1) * block, 1 + split * block)


def _is_made(root: Path, settings: DemoSettings) -> bool:
    if not root.exists():
        return False
    if not root.is_dir():
        raise DatasetError(f"{root} is a file; name a folder that does not exist yet")
    if not any(root.iterdir()):
        return False
    made = root / _SETTINGS_FILE
    if made.is_file() and made.read_text(encoding="utf-8") == _settings_text(settings):
        return True
    raise DatasetError(f"{root} already holds something else; delete it or name a folder that does not exist yet")


def _settings_text(settings: DemoSettings) -> str:
    return json.dumps(asdict(settings), indent=1) + "\n"


def _write_videos(folder: Path, settings: DemoSettings, progress: Progress | None) -> None:
    clips = list(demo_clips(settings))
    for class_name in settings.classes:
        (folder / class_name).mkdir(parents=True)

    def make(clip: DemoClip) -> None:
        write_video(folder / clip.file, render_clip(settings, clip))

    for done, _ in enumerate(in_threads(make, clips), start=1):
        if progress is not None:
            progress("make demo", done, len(clips))


def _write_lists(folder: Path, settings: DemoSettings) -> None:
    folder.mkdir(parents=True)
    label = {name: number for number, name in enumerate(settings.classes, start=1)}
    _write_lines(folder / "classInd.txt", [f"{label[name]} {name}" for name in settings.classes])
    for split in range(1, N_SPLITS + 1):
        held_out = held_out_groups(settings.groups, split)
        train, test = [], []
        for clip in demo_clips(settings):
            if clip.group in held_out:
                test.append(clip.file)
            else:
                train.append(f"{clip.file} {label[clip.class_name]}")
        _write_lines(folder / f"trainlist{split:02d}.txt", train)
        _write_lines(folder / f"testlist{split:02d}.txt", test)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def write_video(path: Path, frames: ByteArray, *, fps: int = FPS) -> None:
    """Encode frames (T, H, W, 3) as an XviD AVI file: GOP of 12, no B-frames, fixed quantiser."""
    import av  # names and lists of a set must not need FFmpeg

    _, height, width, _ = frames.shape
    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        context = stream.codec_context
        context.codec_tag = "XVID"
        context.thread_count = 1
        context.gop_size = 12
        context.max_b_frames = 0
        context.qmin = context.qmax = 3
        context.options = {"flags": "+bitexact"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
