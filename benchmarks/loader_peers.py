"""The loader and its peers, each as a function that delivers the same clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from data import AugmentSpec, ClipSpec, Dataset
from data.clips.loader import ClipLoader
from data.clips.plan import TrainingRows
from data.index.records import ClipRecord, Measurement
from data.reading.video import decode_frames, scaled_size
from data.stores.protocol import Box

T = TypeVar("T")

SHORT_SIDE, CROP = 128, 112
CLIP = ClipSpec(frames=32, stride=2, size=CROP)
CUT = AugmentSpec(crop="short_side", short_side_max=SHORT_SIDE / CROP)
"""Boxes of exactly 112 x 112 pixels, which need no resizing."""
BATCH = 8


COPY = "copy of the boxes from the page cache"
"""The physical limit of a cache of decoded frames that all processes share."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One clip that every peer must deliver."""

    record: ClipRecord
    indices: np.ndarray[Any, Any]
    box: Box
    """In pixels of the frames at short side 128."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to deliver clips, and the number of clips that it delivers per turn."""

    name: str
    deliver: Callable[[Sequence[Request]], None]
    clips: int


def _known(value: T | None) -> T:
    """Return what PyAV knows of every stream that it has opened, but does not promise."""
    if value is None:
        raise ValueError("the video has no frame rate, no time base, or a frame without a time")
    return value


def _target() -> np.ndarray[Any, np.dtype[np.uint8]]:
    # Twice a batch, because one is read while another is used.
    return np.empty((2 * BATCH, CLIP.frames, CROP, CROP, 3), np.uint8)


def copies(raw: Dataset, clips: int) -> Iterator[Peer]:
    """Yield the physical limit: the same bytes, already decoded, copied by numpy.

    Once from the page cache, where processes can share them, and once from private memory of this process, where larger
    pages make access faster.
    """
    store: Any = raw.stores["rgb"]
    shared = {record.id: store.video(record.id) for record in raw.index.usable}
    private = {id_: np.array(video) for id_, video in shared.items()}
    lying = np.zeros((64, CLIP.frames, CROP, CROP, 3), np.uint8)
    target = _target()

    def boxes(requests: Sequence[Request], videos: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for number, request in enumerate(requests):
            box, first, last = request.box, request.indices[0], request.indices[-1] + 1
            video = videos[request.record.id][first : last : CLIP.stride]
            cut = video[:, box.top : box.top + box.height, box.left : box.left + box.width]
            np.copyto(target[number % len(target)], cut)

    def lines(requests: Sequence[Request]) -> None:
        for number, _ in enumerate(requests):
            np.copyto(target[number % len(target)], lying[number * 7 % len(lying)])

    yield Peer(name=COPY, deliver=lambda requests: boxes(requests, shared), clips=clips)
    yield Peer(
        name="copy of the boxes from private memory", deliver=lambda requests: boxes(requests, private), clips=clips
    )
    yield Peer(name="copy of as many bytes in one piece", deliver=lines, clips=clips)


def loaders(stores: Mapping[str, Dataset], clips: int) -> Iterator[Peer]:
    shares = {"raw": 1, "i420": 8, "jpeg": 20, "lmdb": 20, "tinyvideo": 20}
    for kind, dataset in stores.items():
        yield Peer(name=f"ours, {kind}", deliver=_delivery(dataset, CUT, floats=False), clips=clips // shares[kind])
    augment = AugmentSpec()
    yield Peer(
        name="ours, raw, resized and normalised on this CPU",
        deliver=_delivery(stores["raw"], augment, floats=True),
        clips=clips // 10,
    )


def _delivery(dataset: Dataset, augment: AugmentSpec, *, floats: bool) -> Callable[[Sequence[Request]], None]:
    """Return the delivery by our loader, which draws its own clips instead of those requested."""
    rows = TrainingRows(clip=CLIP, augment=augment, seed=0)
    loader = ClipLoader(dataset.stores, dataset.index.usable, rows, batch_size=BATCH)

    def deliver(requests: Sequence[Request]) -> None:
        missing, epoch = len(requests), 0
        while missing > 0:
            for batch in loader.batches(epoch) if floats else loader.host_batches(epoch):
                missing -= len(batch.ids) if floats else len(batch.rows)  # type: ignore[union-attr]  # by `floats`
                if missing <= 0:
                    break
            epoch += 1

    return deliver


def decoders(root: Path, clips: int) -> Iterator[Peer]:
    """Yield peers that decode on the fly, as loaders without a cache do."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    target = _target()

    def with_pyav(request: Request, out: np.ndarray[Any, Any]) -> None:
        wanted = {int(index): place for place, index in enumerate(request.indices)}
        width, height = _small(request.record.measured)
        with av.open(str(root / request.record.path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate, base = _known(stream.average_rate), _known(stream.time_base)
            container.seek(round(int(request.indices[0]) / rate / base), stream=stream)
            for frame in container.decode(stream):
                place = wanted.pop(round(_known(frame.pts) * base * rate), None)
                if place is not None:
                    small = reformatter.reformat(frame, width=width, height=height, format="rgb24")
                    out[place] = _cut(small.to_ndarray(), request.box)
                    if not wanted:
                        return

    yield Peer(name="PyAV", deliver=lambda requests: _each(requests, with_pyav, target), clips=clips)
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec is left out: {str(error).splitlines()[0]}")
        return

    def with_torchcodec(request: Request, out: np.ndarray[Any, Any]) -> None:
        decoder = VideoDecoder(str(root / request.record.path), num_ffmpeg_threads=1, seek_mode="approximate")
        frames = decoder.get_frames_at(indices=request.indices.tolist()).data
        width, height = _small(request.record.measured)
        small = torch.nn.functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
        out[:] = _cut(small.permute(0, 2, 3, 1).numpy(), request.box, axis=1)

    yield Peer(name="torchcodec", deliver=lambda requests: _each(requests, with_torchcodec, target), clips=clips)


def jpegs(root: Path, raw: Dataset, folder: Path, clips: int) -> Iterator[Peer]:
    """Yield peers that read extracted JPEG files with Pillow and crop with torchvision, as usual for frame folders."""
    from PIL import Image
    from torchvision.transforms import v2

    target = _target()
    to_small = v2.Resize(SHORT_SIDE, antialias=True)

    def deliver_from(extracted: Path, *, resize: bool) -> Callable[[Request, np.ndarray[Any, Any]], None]:
        def deliver(request: Request, out: np.ndarray[Any, Any]) -> None:
            box = request.box
            for place, index in enumerate(request.indices):
                with Image.open(extracted / request.record.id / f"{index:05d}.jpg") as image:
                    small = to_small(image.convert("RGB")) if resize else image.convert("RGB")
                cut = v2.functional.crop(small, box.top, box.left, box.height, box.width)
                out[place] = v2.functional.pil_to_tensor(cut).permute(1, 2, 0).numpy()

        return deliver

    large, small = folder / "large", folder / "small"
    _extract(root, raw, large, small)
    for name, extracted in (("JPEG 320x240, PIL + torchvision", large), ("JPEG of short side 128, PIL", small)):
        one = deliver_from(extracted, resize=extracted == large)
        yield Peer(name=name, deliver=lambda requests, one=one: _each(requests, one, target), clips=clips)  # type: ignore[misc]  # bound early


def _extract(root: Path, raw: Dataset, large: Path, small: Path) -> None:
    for record in raw.index.usable:
        for folder, side in ((large, None), (small, SHORT_SIDE)):
            (folder / record.id).mkdir(parents=True)
            for number, frame in enumerate(decode_frames(root / record.path, short_side=side)):
                name = str(folder / record.id / f"{number:05d}.jpg")
                cv2.imwrite(name, frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def _each(
    requests: Sequence[Request],
    one: Callable[[Request, np.ndarray[Any, Any]], None],
    target: np.ndarray[Any, Any],
) -> None:
    for number, request in enumerate(requests):
        one(request, target[number % len(target)])


def _small(measured: Measurement) -> tuple[int, int]:
    return scaled_size(measured.width, measured.height, SHORT_SIDE)


def _cut(frames: np.ndarray[Any, Any], box: Box, *, axis: int = 0) -> np.ndarray[Any, Any]:
    inside = (slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
    return frames[(slice(None),) * axis + inside]
