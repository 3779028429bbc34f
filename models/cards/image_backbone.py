"""Cards of the classifiers of images of other libraries, frame by frame."""

from __future__ import annotations

from ..card import Choice, Divides, HParam, ModelInfo, SearchChoice, Text
from .resnet2d import CONSENSUS, PARTIAL_NORM, SEGMENTS, SEQ_LEN, SHIFT, clip

_TEMPORAL = HParam(
    name="temporal_module",
    default="none",
    accepts=Choice(values=("none", "shift", "aggregation")),
    doc="Combine the images of a clip before each residual branch, as TSM (shift) or TAM (aggregation) does.",
)


def _card(name: str, library: str, *, backbone: str, example: str, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=name,
        family=f"{library} (frames)",
        paper="Wang et al., Temporal Segment Networks: Towards Good Practices for Deep Action Recognition, ECCV 2016",
        clip=clip(8),
        builder=f"models.architectures.image_backbone:{library.capitalize()}Frames",
        hparams=(
            HParam(
                name="backbone",
                default=backbone,
                accepts=Text(pattern=r"[A-Za-z0-9_.]+", words=f"a name of {library}, such as {example}"),
                doc=f"The classifier, by its name in {library}.",
            ),
            _TEMPORAL,
            SHIFT[0],
            CONSENSUS,
            SEQ_LEN,
            PARTIAL_NORM,
        ),
        rules=(Divides(divisor="seq_len", of="frames"),),
        of_images=True,
        dropout=0.5,
        min_size=32,
        parameters=parameters,
        gflops=gflops,
        search=(SEGMENTS, SearchChoice(name="model.temporal_module", values=("none", "shift", "aggregation"))),
    )


CARDS = (
    _card(
        "torchvision_frames",
        "torchvision",
        backbone="efficientnet_b0",
        example="convnext_tiny",
        parameters=4_519_948,
        gflops=3.08,
    ),
    _card("timm_frames", "timm", backbone="convnext_tiny", example="resnet50d", parameters=28_127_728, gflops=35.641),
)
