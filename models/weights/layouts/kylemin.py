"""Names of kylemin's S3D, which was converted from its authors' TensorFlow."""

from __future__ import annotations

from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, has

_NAMES: Rules = [
    (r"^base\.", "features."),
    (r"^fc\.0\.", "classifier.1."),
    # A module of one layer, which is the layer itself here.
    (r"\.branch0\.0\.(conv|bn)\.", r".branch0.\1."),
    (r"\.conv_s\.", ".0.0."),
    (r"\.bn_s\.", ".0.1."),
    (r"\.conv_t\.", ".1.0."),
    (r"\.bn_t\.", ".1.1."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
]


def _read(state: State) -> Reading | None:
    if not has(state, r"base\.0\.conv_s\.weight"):
        return None
    return by_rules(
        state,
        _NAMES,
        network="S3D",
        candidates=(Candidate(model="s3d"),),
        notes=("it was trained on clips of values from -1 to 1, so set mean and std of the clip to 0.5",),
    )


LAYOUTS = (Layout(name="kylemin's S3D", read=_read),)
