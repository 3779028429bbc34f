"""Class folders of images: whatever people have in them, and what cannot be used named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DatasetNotFoundError, DatasetSpec, open_dataset
from data.importers.image_folders import read_image_folders
from data.scanning.report import check
from data.scanning.scan import scan
from data.synthetic.shapes import make_shapes

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
CLASSES = ("Cat", "Dog")


def put(path: Path, picture: Image.Image | bytes = b"", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    else:
        picture.save(path, **options)  # type: ignore[arg-type]  # options of PIL


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two classes of three JPEGs."""
    for name in CLASSES:
        for number in range(3):
            put(tmp_path / name / f"{number}.jpg", Image.fromarray(np.roll(COLOURS, number, axis=1)))
    return tmp_path


def test_images_of_every_make_are_clips_of_one_frame(plain: Path) -> None:
    image = Image.fromarray(COLOURS)
    frames = [Image.fromarray(np.roll(COLOURS, move, axis=0)).convert("P") for move in (0, 3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    put(plain / "Cat" / "grey.png", image.convert("L"))
    put(plain / "Cat" / "ink.jpeg", image.convert("CMYK"))
    put(plain / "Cat" / "glass.PNG", Image.fromarray(np.dstack([COLOURS, COLOURS[..., 0]])))
    put(plain / "Cat" / "deep.tif", Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257))
    put(plain / "Cat" / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    put(plain / "Cat" / "moving.webp", image, save_all=True, append_images=[image.rotate(90)])
    put(plain / "Cat" / "far" / "below" / "turned.jpg", image, exif=exif)
    index = scan(plain, name="image_folders")
    assert index.problems() == ()
    found = {clip.id: clip for clip in index.clips}
    assert {clip.kind for clip in index.clips} == {"image"}
    assert {clip.n_frames for clip in index.clips} == {1}
    assert found["Cat/far/below/turned"].measured.width == 20
    assert found["Cat/far/below/turned"].class_name == "Cat"
    assert {"Cat/moving.gif", "Cat/moving.webp"} <= set(found), "of one name there are two images"
    assert not any("pictures are clips" in note for note in check(index).notes)


def test_what_cannot_be_used_is_named_and_the_rest_is(plain: Path) -> None:
    whole = (plain / "Dog" / "0.jpg").read_bytes()
    put(plain / "Dog" / "cut.jpg", whole[: len(whole) // 2])
    put(plain / "Dog" / "text.png", b"hello")
    put(plain / "Dog" / "empty.bmp")
    put(plain / "Dog" / "notes.txt", b"x")
    put(plain / "Dog" / "clip.mp4", b"x")
    put(plain / "loose.jpg", whole)
    (plain / "Bird").mkdir()
    (plain / "Dog" / "nowhere.jpg").symlink_to(plain / "gone.jpg")
    index = scan(plain, name="image_folders")
    assert {problem.id for problem in index.problems()} == {"Dog/cut", "Dog/text", "Dog/empty"}
    assert len(index.usable) == 6
    notes = "\n".join(index.notes)
    for said in ("2 other files", "1 videos lie among", "nowhere.jpg", "e.g. Bird", "e.g. loose.jpg"):
        assert said in notes


@pytest.mark.parametrize("format_", ["gif", "webp"])
def test_a_cut_animation_is_named(plain: Path, format_: str) -> None:
    file = plain / "Dog" / f"cut.{format_}"
    put(file, Image.fromarray(COLOURS))
    file.write_bytes(file.read_bytes()[:-20])
    (problem,) = scan(plain, name="image_folders").problems()
    assert problem.id == "Dog/cut"


@pytest.mark.parametrize(
    ("sides", "official"),
    [
        (("train", "val"), {"train": "train", "val": "test"}),
        (("train", "valid", "test"), {"train": "train", "valid": "validation", "test": "test"}),
        (("train",), {"train": "train"}),
    ],
)
def test_folders_of_sides_are_the_official_split(
    tmp_path: Path, sides: tuple[str, ...], official: dict[str, str]
) -> None:
    for side in sides:
        for name in CLASSES:
            put(tmp_path / side / name / "a.png", Image.fromarray(COLOURS))
    listing = read_image_folders(tmp_path)
    assert {clip.path.split("/")[0]: clip.subset(1) for clip in listing.clips} == official
    assert listing.class_names == CLASSES
    assert len({clip.id for clip in listing.clips}) == len(listing.clips)


def test_ids_are_paths_whatever_folders_and_files_are_called(tmp_path: Path) -> None:
    for path in (
        "train/ain/a.png",
        "train/train/a.png",
        "train/ain/deep/ain/a.png",
        "train/ain/b.jpg",
        "test/ain/a.png",
    ):
        put(tmp_path / path, Image.fromarray(COLOURS))
    for twin in ("train/ain/b.png", "train/ain/b.jpg.png"):
        put(tmp_path / twin, Image.fromarray(COLOURS))
    ids = {clip.path: clip.id for clip in read_image_folders(tmp_path).clips}
    assert len(set(ids.values())) == len(ids) == 7
    named = {path for path, id_ in ids.items() if id_ == path}
    assert named == {"train/ain/b.jpg", "train/ain/b.png", "train/ain/b.jpg.png"}
    assert all(id_ in (path, path.removesuffix(".png")) for path, id_ in ids.items())


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "Cat").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no class folders with images"):
        read_image_folders(tmp_path)


def test_shapes_are_an_image_data_set_whose_bytes_repeat(tmp_path: Path) -> None:
    first, second = (make_shapes(tmp_path / name, images=8, size=16) for name in "ab")
    files = sorted(file.relative_to(first) for file in first.rglob("*.jpg"))
    assert len(files) == 4 * 8
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert make_shapes(first, images=8, size=16) == first, "what is made is kept"
    spec = DatasetSpec(name="image_folders", root=first, short_side=16, held_out="1of3")
    opened = open_dataset(spec, cache_dir=tmp_path / "cache")
    assert (opened.num_fit, len(opened.validation_clips), opened.require_test_clips()) == (16, 8, 8)
