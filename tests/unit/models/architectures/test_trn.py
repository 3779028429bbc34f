"""Relations of images: the authors' layers, every tuple once, and what a draw is on average."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from models.architectures.trn import TRN

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap


def small(**options: Any) -> TRN:
    model = models.create_model("trn_resnet18", num_classes=5, width=4, **{"dropout": 0.0, "segments": 4, **options})
    assert isinstance(model, TRN)
    randomise(model, seed=1)
    return model.double()


def authors_logits(model: TRN, images: Tensor, drawn: int) -> Tensor:
    """Return the logits of the authors' layers, one classifier for each scale, from features (N, images, 256).

    Their classifiers are our one, cut into parts, and our bias is the sum of theirs over all relations.
    """
    head = model.get_classifier()
    weights = head.weight.chunk(3, dim=1)
    total = torch.zeros(images.shape[0], head.out_features, dtype=images.dtype)
    for scale, relation, weight in zip((4, 3, 2), model.relations, weights, strict=True):
        tuples = list(combinations(range(4), scale))
        count = min(drawn or len(tuples), len(tuples))
        layer = relation.get_submodule("fc")
        assert isinstance(layer, nn.Linear)
        of_scale = [F.relu(layer(F.relu(images[:, list(chosen)]).flatten(1))) @ weight.T for chosen in tuples]
        total = total + torch.stack(of_scale).mean(0) * count
    return total + head.bias


def features(model: TRN, clip: Tensor) -> Tensor:
    """Return the features of a clip's images, (N, images, 256)."""
    images = clip.transpose(1, 2).flatten(0, 1)
    vectors: Tensor = model.new_fc(model.image_features(images, clip.shape[2]))
    return vectors.view(clip.shape[0], clip.shape[2], -1)


def test_all_relations_are_those_of_the_authors() -> None:
    for drawn in (0, 3):
        model = small(relations=drawn).eval()
        clip = random_clip(2, 3, 4, 32, 32)
        with torch.no_grad():
            assert relative_gap(model(clip), authors_logits(model, features(model, clip), drawn)) < TOLERANCE


def test_training_draws_relations_whose_average_is_what_evaluation_computes() -> None:
    model = small(relations=1)
    relation = model.relations[2]
    images = random_clip(2, 4, 256)
    layer = relation.get_submodule("fc")
    tuples = list(combinations(range(4), 2))
    each = [F.relu(layer(F.relu(images[:, list(chosen)]).flatten(1))) for chosen in tuples]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        draws = [relation(images) for _ in range(60)]
        which = [[torch.allclose(draw, one) for one in each] for draw in draws]
        assert all(sum(row) == 1 for row in which)
        assert {row.index(True) for row in which} == set(range(6))
        torch.testing.assert_close(relation.eval()(images), torch.stack(each).mean(0))


def test_of_longer_and_shorter_clips_even_images_are_seen() -> None:
    model = small().eval()
    clip = random_clip(1, 3, 12, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(clip), model(clip[:, :, [1, 4, 7, 10]]))
        assert torch.equal(model(clip[:, :, :2]), model(clip[:, :, [0, 0, 1, 1]]))


def test_order_matters() -> None:
    model = small().eval()
    clip = random_clip(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert relative_gap(model(clip.flip(2)), model(clip)) > 1e-6


def test_the_published_size_is_that_of_one_classifier_for_each_scale() -> None:
    # MMAction2's table of models: 26.64 M for 174 classes, with a bias of each of the seven classifiers.
    with torch.device("meta"):
        model = models.create_model("trn_resnet50", num_classes=174)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round((count + 6 * 174) / 1e6, 2) == 26.64
