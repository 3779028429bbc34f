"""Inflating the weights of an image network to those of a video network.

Source: Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017, section 2.1: a kernel is repeated
over time and divided by the number of repeats, so that a clip of one repeated image has the outputs of the image
(away from the ends of the clip, where zeros are padded).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import WeightsError
from ..video_model import VideoModel
from ..weights_report import WeightsReport


def inflate_kernel(kernel: Tensor, frames: int, *, inflate_scale: float | None = None) -> Tensor:
    """Return a 2-D kernel (O, I, H, W) repeated over time to (O, I, frames, H, W), times `inflate_scale`.

    The default scale is 1 / `frames`. A scale of 1 repeats without dividing, as some programs do, which leave it to
    the batch norms to absorb the factor.
    """
    if kernel.ndim != 4:
        raise WeightsError(f"a kernel to inflate must have the axes (O, I, H, W), not the shape {tuple(kernel.shape)}")
    if frames < 1:
        raise WeightsError(f"a kernel must be inflated to at least 1 frame, not {frames}")
    scale = 1 / frames if inflate_scale is None else inflate_scale
    return (kernel * scale).unsqueeze(2).repeat(1, 1, frames, 1, 1)


def load_inflated(
    model: VideoModel, state: Mapping[str, Tensor], *, inflate_scale: float | None = None
) -> WeightsReport:
    """Load the state dict of the model's image network, with torchvision's names, and return a report.

    :meth:`VideoModel.image_names` assigns the tensors, and :meth:`VideoModel.from_image` fits them. Convolutions are
    inflated to the model's number of frames (see :func:`inflate_kernel`); all others are copied. The classifier and
    parameters that the image network lacks (temporal convolutions) do not change and are listed as `reset`.

    Raises WeightsError, with the model unchanged, if the model has no image network, or a tensor is missing or has
    another shape.
    """
    names = model.image_names()
    if not names:
        raise WeightsError(f"{model.name} is not made from an image network: load weights of {model.name} itself")
    own = model.state_dict()
    absent = sorted(theirs for theirs in names.values() if theirs not in state)
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise WeightsError(f"the image weights for {model.name} lack {', '.join(absent[:5])}{more}")
    filled = {
        ours: _fitted(model.from_image(ours, state[theirs]), own[ours], inflate_scale) for ours, theirs in names.items()
    }
    for ours, tensor in filled.items():
        if tensor.shape != own[ours].shape:
            raise WeightsError(
                f"{names[ours]} of the image weights is {tuple(state[names[ours]].shape)}, "
                f"which does not give {ours} of {model.name} its {tuple(own[ours].shape)}"
            )
    model.load_state_dict(filled, strict=False)
    return WeightsReport(loaded=tuple(filled), reset=tuple(sorted(own.keys() - filled.keys())))


def _fitted(theirs: Tensor, ours: Tensor, inflate_scale: float | None) -> Tensor:
    if ours.ndim == 5 and theirs.ndim == 4:
        # A kernel of one frame is not repeated, so no scale applies.
        frames = ours.shape[2]
        return inflate_kernel(theirs, frames, inflate_scale=None if frames == 1 else inflate_scale)
    return theirs
