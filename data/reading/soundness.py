"""Whether a video is whole: what its container promises, against what was read and decoded.

A decoder conceals damage: it repeats pictures, or fills them with grey, without an error. What shows it are packets and
frames that the libraries mark as corrupt, packets without a picture, and timestamps that end before
the stated duration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..clip_status import Status

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

HEADER_SLACK_FRAMES = 2
"""Headers of valid MPEG-4 AVI files count one frame too many (HMDB51), and one packet shows no picture."""
_SLACK_SHARE = 0.05
_UNKNOWN_FRAMES = 1 << 28
"""A count from here on is a placeholder of a writer that could not go back to the header."""
_PACKED_CODECS = frozenset({"mpeg4", "msmpeg4v2", "msmpeg4v3", "mpeg1video", "mpeg2video", "vp8"})
"""Codecs with packets that rightly show no picture of their own: packed B-frames, fields, VP8's hidden references."""


def slack_frames(claimed: int) -> float:
    """Return how many of the frames that a header or a list claims may be missing."""
    return max(HEADER_SLACK_FRAMES, _SLACK_SHARE * claimed)


@dataclass(kw_only=True)
class Tally:
    """What was read of a video and decoded, counted packet by packet."""

    frames: int = 0
    damaged: int = 0
    """Frames that the decoder marks as corrupt."""
    packets: int = 0
    """Of the video, without those that an edit list hides."""
    cut_packets: int = 0
    """Packets that are incomplete in the file."""
    end: float = 0.0
    """Seconds at which the last packet of the video ends."""
    end_of_all: float = 0.0
    """The same over all streams."""
    first_shown: int | None = None
    """Timestamp of the first frame."""
    _unshown: list[int] = field(default_factory=list)
    """Timestamps of the packets of the video."""

    def read(self, packet: Packet[Any]) -> None:
        """Count a packet."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.time_base is None:
            return
        end = float((time + (packet.duration or 0)) * packet.time_base)
        self.end_of_all = max(self.end_of_all, end)
        if packet.stream.type != "video":
            return
        self.cut_packets += packet.is_corrupt
        if not packet.is_discard:
            self.packets += 1
            self.end = max(self.end, end)
            self._unshown.append(time)

    def show(self, frame: VideoFrame) -> None:
        """Count a decoded frame."""
        if self.frames == 0:
            self.first_shown = frame.pts
        self.frames += 1
        self.damaged += frame.is_corrupt

    @property
    def lost(self) -> int:
        """Return how many packets after the first picture gave none.

        Pictures before the first one refer to what was cut away in front, which is no fault of the file.
        """
        first = self.first_shown
        due = self.packets if first is None else sum(time >= first for time in self._unshown)
        return max(0, due - self.frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """What the container says of its video."""

    codec: str
    frames: int
    """0 if it does not say."""
    seconds: float
    """0 if it does not say."""
    of_video: bool
    """Whether the seconds are those of the video alone, not of its sound as well."""
    frame_seconds: float
    counts_time: bool
    """Whether the frames are the only measure of time (AVI)."""

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream) -> Promise:
        rate = float(stream.average_rate or 0)
        frames = stream.frames if stream.frames < _UNKNOWN_FRAMES else 0
        seconds, of_video = _stated_seconds(container, stream)
        return cls(
            codec=stream.codec_context.name,
            frames=frames,
            seconds=seconds,
            of_video=of_video,
            frame_seconds=1 / rate if rate > 0 else 0.0,
            counts_time=container.format.name == "avi",
        )

    def reached(self, tally: Tally) -> bool:
        """Return whether something is stated, and was read to its end."""
        if self.counts_time:
            return bool(self.frames) and tally.end >= (self.frames - 0.5) * self.frame_seconds
        return self.seconds > 0 and self._missing_seconds(tally) <= 0.5 * self.frame_seconds

    def shortfall(self, tally: Tally) -> str | None:
        """Return a clause on what is missing at the end, or None."""
        if self.counts_time:
            slots = round(tally.end / self.frame_seconds) if self.frame_seconds else tally.packets
            if self.frames - slots > slack_frames(self.frames):
                return f"{tally.frames} of {self.frames} frames decode"
            return None
        missing = self._missing_seconds(tally)
        # Durations are rounded, and that of a last frame is often unknown.
        if self.seconds and missing > max(1.5 * self.frame_seconds, 0.02 * self.seconds if not self.of_video else 0.0):
            return f"it ends {missing:.2f} s before the {self.seconds:.2f} s that it states"
        return None

    def _missing_seconds(self, tally: Tally) -> float:
        return self.seconds - (tally.end if self.of_video else tally.end_of_all)


def video_fault(promise: Promise, tally: Tally, cut: str | None, hole: str | None = None) -> tuple[Status, str] | None:
    """Return what is wrong with a video that was read from its first frame to its last, or None.

    Args:
        cut: a clause on bytes that are missing at the end, see `endings.cut_short`.
        hole: a clause on bytes that are missing elsewhere, see `holes.hole_in`.
    """
    if cut is not None and (tally.cut_packets or not promise.reached(tally)):
        return "truncated", cut
    if tally.cut_packets:
        return "truncated", f"{tally.cut_packets} packets are incomplete"
    if tally.damaged:
        return "corrupt", f"{tally.damaged} of {tally.frames} frames are damaged"
    if tally.lost > (slack_frames(tally.packets) if promise.codec in _PACKED_CODECS else 0):
        return "truncated", f"{tally.frames} of {tally.frames + tally.lost} frames decode"
    shortfall = promise.shortfall(tally)
    if shortfall is not None:
        return "truncated", shortfall
    return None if hole is None else ("corrupt", hole)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> tuple[float, bool]:
    """Return the stated end of the video in seconds (0 if there is none), and whether it is that of the video alone."""
    name = container.format.name
    if "matroska" in name:
        tag = stream.metadata.get("DURATION", "")
        parts = tag.split(":")
        try:
            hours, minutes, seconds = (float(part) for part in parts)
        except ValueError:
            return (container.duration or 0) / 1e6, False
        return 3600 * hours + 60 * minutes + seconds, True
    if "mp4" in name and stream.duration and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base), True
    return 0.0, False  # others do not say, or FFmpeg guesses it from the file's end
