"""The base class of image networks over clips: each frame is processed alone, then their logits are joined.

Source: Wang et al., Temporal Segment Networks, ECCV 2016, section 3.1 (segments and their consensus).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_modules import as_clips
from ..video_model import VideoModel


class FrameModel(VideoModel):
    """A network of 2-D convolutions that processes a clip frame by frame.

    Clips are (N, C, T, H, W). With a `seq_len` of more than one, that number of neighbouring frames is stacked on
    the channel axis, frame by frame, and counts as one image; T must be a multiple of it. Dropout and the
    classifier act on every image; `consensus` joins their logits: ``"average"`` or ``"max"``.

    A subclass defines :meth:`image_features`, and gives its parameters the names of the published image network.
    `temporal_names` are parts of names that the image network lacks. `optional_names` are beginnings of names in its
    published files that this model does not need.
    """

    classifier_name = "fc"
    temporal_names: ClassVar[tuple[str, ...]] = ()
    optional_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.seq_len = int(settings.hparams.get("seq_len", 1))
        self.consensus = str(settings.hparams.get("consensus", "average"))
        self.image_channels = settings.in_channels * self.seq_len
        self.partial_norm = bool(settings.hparams.get("partial_norm", False))

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes), the consensus of :meth:`frame_logits`."""
        return segment_consensus(self.frame_logits(clip), self.consensus)

    def train(self, mode: bool = True) -> Self:
        """Return the module in training or evaluation mode.

        With ``partial_norm``, all batch norms except the first always stay in evaluation mode.
        Batches of a few clips would spoil the statistics of an image network (section 3.2, regularization).
        """
        super().train(mode)
        if self.partial_norm:
            norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]
            for norm in norms[1:]:
                norm.eval()
        return self

    def frame_logits(self, clip: Tensor) -> Tensor:
        """Return logits (N, images, num_classes), one row per image of the clip.

        Raises InvalidClipError for a shape that the model cannot take.
        """
        self.check_input(clip)
        logits: Tensor = self.get_classifier()(self.dropout(self.frame_features(clip)))
        return logits

    def frame_features(self, clip: Tensor) -> Tensor:
        """Return one vector per image, (N, images, num_features)."""
        images = fold_frames(clip, self.seq_len)
        features = self.image_features(images, clip.shape[2] // self.seq_len)
        return as_clips(features, features.shape[0] // clip.shape[0])

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the average over the clip's images.

        With the average consensus, the classifier turns these vectors into the logits of the clip, except for dropout.
        """
        return self.frame_features(clip).mean(1)

    @abstractmethod
    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return vectors (N * length', num_features) of images (N * length, C, H, W), ordered by clip."""

    def image_names(self) -> dict[str, str]:
        """Return the names in the published image network: the same names, without those of temporal modules."""
        heads = tuple(f"{name}." for name in self.classifier_names)
        names = (name for name in self.state_dict() if not name.startswith(heads))
        return {name: name for name in names if not any(part in name for part in self.temporal_names)}

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the moved module; ``channels_last_3d`` means ``channels_last`` for its 2-D kernels."""
        return super().to(*args, **images_format(kwargs))


def images_format(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of ``Module.to`` with the memory format of clips replaced by that of images."""
    if arguments.get("memory_format") is torch.channels_last_3d:
        return arguments | {"memory_format": torch.channels_last}
    return arguments


def fold_frames(clip: Tensor, seq_len: int = 1) -> Tensor:
    """Return the images (N * T / seq_len, seq_len * C, H, W) of clips (N, C, T, H, W), ordered by clip.

    The channels of a stack are those of its first frame, then of the second, and so on. A clip in the memory format
    ``channels_last_3d`` gives ``channels_last`` images, without a copy if `seq_len` is 1.
    """
    frames = clip.transpose(1, 2)
    if seq_len > 1:
        count, length, channels, *size = frames.shape
        frames = frames.reshape(count, length // seq_len, seq_len * channels, *size)
    return frames.flatten(0, 1)


def segment_consensus(logits: Tensor, how: str) -> Tensor:
    """Return logits (N, classes): the ``"average"`` or, per class, the ``"max"`` of (N, segments, classes)."""
    return logits.amax(1) if how == "max" else logits.mean(1)


def small_linear(features: int, outputs: int) -> nn.Linear:
    """Return a hidden linear layer with weights from N(0, 0.01) and a bias of zero."""
    layer = nn.Linear(features, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
