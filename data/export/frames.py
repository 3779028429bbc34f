"""Writing clips as images, under the names that other tools read; resumable, one clip at a time.

    naming        frames                            flow
    tsn           <Class>/<clip>/img_00001.jpg      <Class>/<clip>/flow_x_00001.jpg, .../flow_y_00001.jpg
    annot_json    images/<clip>/frame000001.jpg     flows/u/<clip>/frame000001.jpg, flows/v/<clip>/...
    ibm           <Class>/<clip>/00001.jpg          <Class>/<clip>/00001_x.jpg, <Class>/<clip>/00001_y.jpg

Names are safe (see `safe_names`), and the same as those that `export` writes into lists.
A clip's folders are written under temporary names and renamed when they are complete, that of its frames last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ..errors import CacheError, InvalidSpecError
from ..index.records import ClipRecord, Index
from ..parallel import in_threads
from ..preparation.prepare import recipes
from ..progress import Progress
from ..reading.images import encode_jpeg
from ..specs import DatasetSpec, Stream
from .safe_names import SafeName, safe_names

if TYPE_CHECKING:
    from ..stores.build import Recipe

JPEG_QUALITY = 95
SETTINGS_FILE = "extract.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """Path patterns of the images of a clip; `{}` stands for the clip."""

    frames: str
    x: str
    y: str
    flat: bool = False
    """Whether folders are named by the clip alone, without its class."""


NAMINGS: Mapping[str, Naming] = {
    "tsn": Naming(frames="{}/img_%05d.jpg", x="{}/flow_x_%05d.jpg", y="{}/flow_y_%05d.jpg"),
    "annot_json": Naming(
        frames="images/{}/frame%06d.jpg", x="flows/u/{}/frame%06d.jpg", y="flows/v/{}/frame%06d.jpg", flat=True
    ),
    "ibm": Naming(frames="{}/%05d.jpg", x="{}/%05d_x.jpg", y="{}/%05d_y.jpg"),
}


def extract(index: Index, spec: DatasetSpec, folder: Path, *, naming: str, progress: Progress | None = None) -> int:
    """Return the number of usable clips, all written as JPEG images below `folder`, with their flow if `spec` has any.

    Raises:
        InvalidSpecError: the naming is not known.
        CacheError: the folder cannot be written, or holds images of other settings.
        VideoError: a clip cannot be decoded any more.
        FlowError: the flow in `spec` cannot be computed.
    """
    if naming not in NAMINGS:
        raise InvalidSpecError(f"naming is {naming!r}; it must be one of {tuple(NAMINGS)}")
    writer = _Writer(
        naming=NAMINGS[naming],
        folder=folder,
        recipes=recipes(index, spec),
        names=safe_names(index.usable, index.class_names),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            settings = {"naming": naming, "short_side": spec.short_side, "flow": spec.flow}
            _require_same(folder, {"dataset": index.name, "version": index.hash, **settings})
            for done, _ in enumerate(in_threads(writer.write, index.usable), start=1):
                if progress is not None:
                    progress("extract", done, len(index.usable))
    except OSError as error:
        raise CacheError(f"{folder} cannot be filled: {error}") from error
    return len(index.usable)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Writer:
    """Writes the images of one clip after the other; several threads may share it."""

    naming: Naming
    folder: Path
    recipes: Mapping[Stream, Recipe]
    names: Mapping[str, SafeName]

    def write(self, clip: ClipRecord) -> None:
        """Write a clip's images, unless they exist."""
        frames = self._file(self.naming.frames, clip)
        if frames.parent.is_dir():
            return
        files = {"rgb": [frames]}
        if "flow" in self.recipes:
            files["flow"] = [self._file(self.naming.x, clip), self._file(self.naming.y, clip)]
        # The frames' folder is renamed last: if it exists, the others do.
        folders = list(dict.fromkeys(file.parent for file in [*files.get("flow", []), frames]))
        folders.sort(key=lambda folder: folder == frames.parent)
        for folder in folders:
            shutil.rmtree(_aside(folder), ignore_errors=True)
            _aside(folder).mkdir(parents=True)
        for stream, recipe in self.recipes.items():
            self._fill(clip, recipe, files[stream])
        for folder in folders:
            if folder.is_dir():  # it was renamed before a kill
                shutil.rmtree(_aside(folder))
            else:
                _aside(folder).rename(folder)

    def _file(self, pattern: str, clip: ClipRecord) -> Path:
        """Return the path of a clip's images, with a placeholder for the number."""
        folder, _, name = pattern.rpartition("/")
        called = self.names[clip.id]
        return self.folder / folder.format(called.stem if self.naming.flat else called) / name

    def _fill(self, clip: ClipRecord, recipe: Recipe, files: Sequence[Path]) -> None:
        count = 0
        for number, frame in enumerate(recipe.frames(clip), start=1):
            planes = [frame] if len(files) == 1 else [frame[..., 0], frame[..., 1]]
            for file, plane in zip(files, planes, strict=True):
                (_aside(file.parent) / (file.name % number)).write_bytes(encode_jpeg(plane, JPEG_QUALITY))
            count = number
        if count != recipe.shape(clip)[0]:
            raise CacheError(f"{clip.path} has changed since it was scanned; start again")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _require_same(folder: Path, settings: Mapping[str, object]) -> None:
    """Write the settings into the folder, or check that it was filled with the same ones."""
    path, text = folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n"
    if not path.is_file():
        aside = folder / f".{SETTINGS_FILE}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    elif path.read_text(encoding="utf-8") != text:
        raise CacheError(f"{folder} holds images of another data set or of other settings; name a new folder")
