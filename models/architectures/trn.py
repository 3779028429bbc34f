"""The multi-scale temporal relation network: layers that see two, three and more images of a clip in their order.

Source: Zhou et al., Temporal Relational Reasoning in Videos, ECCV 2018, section 3. A relation of a scale is a tuple of
that number of images. The authors' classifiers, one for each scale, are one layer here: its weight is theirs side by
side, its bias the sum of theirs, each times the number of relations of its scale.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_modules import as_clips
from ..video_model import make_classifier
from .frame_model import fold_frames, small_linear
from .resnet2d import ResNet2D

_IMAGE_FEATURES = 256
_RELATION_FEATURES = 256


class ScaleRelation(nn.Module):
    """The relations of one scale: a ReLU, a linear layer over the joined features of a tuple, and a ReLU.

    Training draws `drawn` tuples at random (all of them if that is 0, or more than there are). Evaluation takes the
    mean of all tuples times the number of drawn ones, which is what draws give on average.
    """

    tuples: Tensor

    def __init__(self, images: int, scale: int, drawn: int) -> None:
        super().__init__()
        tuples = torch.tensor(list(combinations(range(images), scale)))
        self.register_buffer("tuples", tuples, persistent=False)
        self.drawn = min(drawn or len(tuples), len(tuples))
        self.fc = small_linear(scale * _IMAGE_FEATURES, _RELATION_FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Map the features (N, images, 256) of clips to the sums (N, 256) over relations."""
        tuples = self.tuples
        if self.training and self.drawn < len(tuples):
            tuples = tuples[torch.randperm(len(tuples), device=tuples.device)[: self.drawn]]
        joined = images.relu()[:, tuples].flatten(2)
        y: Tensor = self.fc(joined).relu().mean(1) * self.drawn
        return y


class TRN(ResNet2D):
    """A residual network of images and the relations of their features.

    The relations are of a fixed number of images; of a clip of another length, that many are chosen evenly.
    """

    temporal_names = (*ResNet2D.temporal_names, "new_fc.", "relations.")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        images = self.config.segments
        self.new_fc = small_linear(self.fc.in_features, _IMAGE_FEATURES)
        # As the authors order them: from the relation of all images to those of two.
        self.relations = nn.ModuleList(
            ScaleRelation(images, scale, self.config.relations) for scale in range(images, 1, -1)
        )
        self.fc = make_classifier(len(self.relations) * _RELATION_FEATURES, settings.num_classes)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of the network of images, then the relations."""
        return (*super().layer_names, ("new_fc", "relations"))

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes) of clips (N, C, T, H, W); dropout acts on the features of images."""
        self.check_input(clip)
        logits: Tensor = self.fc(self.forward_features(clip))
        return logits

    def frame_logits(self, clip: Tensor) -> Tensor:
        """Raise: the images of a clip have no logits of their own here."""
        raise NotImplementedError(f"{self.name} has no logits of single images")

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the sums over the relations of each scale."""
        images = fold_frames(self._chosen(clip), self.seq_len)
        vectors = self.new_fc(self.dropout(self.image_features(images, self.config.segments)))
        of_clips = as_clips(vectors, self.config.segments)
        return torch.cat([relation(of_clips) for relation in self.relations], 1)

    def _chosen(self, clip: Tensor) -> Tensor:
        length, wanted = clip.shape[2], self.config.segments
        if length == wanted:
            return clip
        places = (torch.arange(wanted, device=clip.device) * 2 + 1) * length // (2 * wanted)
        return clip[:, :, places]
