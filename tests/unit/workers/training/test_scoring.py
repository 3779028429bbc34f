"""Scores over views."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data import ClipBatch, Dataset
from workers.training.inputs import clip_spec
from workers.training.scoring import score

from ..tiny import tiny_config

CPU = torch.device("cpu")


class _Projection(nn.Module):
    """Some fixed function of a clip, with dropout, which evaluation must turn off."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 8 * 24 * 24, 2, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        thinned: torch.Tensor = self.dropout(clips.flatten(1))
        return thinned @ self.weight / 50


@pytest.mark.parametrize("most", [1, 4, 5, 100])
def test_views_may_pass_the_model_a_few_at_a_time(dataset: Dataset, most: int) -> None:
    model = _Projection()
    loader = dataset.validation_loader(clip=clip_spec(tiny_config()), batch_size=6, views=2, crops=5)
    whole = score(model, loader, device=CPU, precision="fp32")
    parts = score(model, loader, device=CPU, precision="fp32", most_clips=most)
    assert (parts.top1, parts.videos) == (whole.top1, 4)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_views_are_averaged_as_probabilities(dataset: Dataset) -> None:
    model = _Projection().train()
    loader = dataset.validation_loader(clip=clip_spec(tiny_config()), batch_size=6, views=3)
    seen: list[ClipBatch] = []
    result = score(model, loader, device=CPU, precision="fp32", each=seen.append)
    assert model.training
    model.eval()
    right, loss = 0, 0.0
    for batch in seen:
        for number, label in enumerate(batch.labels.tolist()):
            views = [model(batch.clips[3 * number + view][None]).softmax(1)[0] for view in range(3)]
            mean = (views[0] + views[1] + views[2]).detach() / 3
            right += int(mean.argmax() == label)
            loss -= float(mean[label].log())
    assert result.videos == 4
    assert result.top1 == right / 4
    assert result.loss == pytest.approx(loss / 4, rel=1e-5)
    assert result.top5 == 1.0
