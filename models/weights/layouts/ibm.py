"""Names of IBM's networks: action-recognition-pytorch, its predecessor Action-Recognition-Study, and bLVNet-TAM."""

from __future__ import annotations

from ..layout import AS_IT_IS, Candidate, Layout, Reading, Rules, State, by_rules, has, resnet_depth

_BLVNET: Rules = [
    (r"^baseline_model\.", ""),
    (r"^new_fc\.", "fc."),
    (r"(^|\.)tam\.(prev|curr|next)\.weight$", r"\1tam.\2_se.fc1.weight"),
    (r"(^|\.)tam\.blending_layers\.(\d+)\.weight$", r"\1tam.blending_layers.\2.fc1.weight"),
]
_MIXED = {
    "3a": "3b",
    "3b": "3c",
    "4a": "4b",
    "4b": "4c",
    "4c": "4d",
    "4d": "4e",
    "4e": "4f",
    "5a": "5b",
    "5b": "5c",
}
_I3D: Rules = [
    (r"^conv1\.", "Conv3d_1a_7x7."),
    (r"^conv2\.", "Conv3d_2b_1x1."),
    (r"^conv3\.", "Conv3d_2c_3x3."),
    (r"^inception(\d\w)\.", lambda m: f"Mixed_{_MIXED[m[1]]}."),
    (r"\.branch1\.", ".b0."),
    (r"\.branch([23])\.([01])\.", lambda m: f".b{int(m[1]) - 1}{'ab'[int(m[2])]}."),
    (r"\.branch4\.1\.", ".b3b."),
    (r"\.conv\.", ".conv3d."),
    (r"^fc\.", "logits.conv3d."),
]
_FEATURES = {"3a": 5, "3b": 6, "4a": 8, "4b": 9, "4c": 10, "4d": 11, "4e": 12, "5a": 14, "5b": 15}
_PAIR: Rules = [(r"\.conv\.", ".0."), (r"\.bn\.", ".1.")]
_SPLIT: Rules = [(r"\.conv\.", ".0.0."), (r"\.bn\.", ".0.1."), (r"\.conv_t\.", ".1.0."), (r"\.bn_t\.", ".1.1.")]
_R3D: Rules = [
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"\.conv([123])\.", r".conv\1.0."),
    (r"\.bn([123])\.", r".conv\1.1."),
]


def _blvnet(state: State) -> Reading | None:
    if not has(state, r"baseline_model\.|(.*\.)?tam\.(prev|curr|next|blending_layers\.\d+)\.weight$"):
        return None
    return by_rules(state, _BLVNET, network="bLVNet-TAM")


def _tam(state: State) -> Reading | None:
    """Return the reading of TAM on a ResNet, whose names are ours; no tensor shows if it adds up or takes maxima."""
    if not has(state, r"layer1\.0\.tam\.(curr_se|blending_layers\.0)\.fc1\.") or not has(state, r"layer1\.0\.conv1\."):
        return None
    depth = resnet_depth(state, r"layer{}\.(\d+)\.")
    candidates = tuple(
        Candidate(model=f"tam_resnet{depth}", options={"blend_method": method}) for method in ("sum", "max")
    )
    return by_rules(state, network="TAM", candidates=candidates)


def _inception(state: State) -> Reading | None:
    """Return the reading of I3D or S3D, both with torchvision's names of the modules of Inception."""
    stem = state.get("conv1.conv.weight")
    if stem is None or stem.ndim != 5 or not has(state, r"inception3a\.branch1\."):
        return None
    if not has(state, r"conv3\.conv_t\."):
        return by_rules(state, _I3D, network="I3D", candidates=(Candidate(model="i3d_ibm"),))
    # Convolutions that are split in space and time have two pairs of layers, all others one.
    split = {name for name in state if f"{name.rpartition('.')[0].rpartition('.')[0]}.conv_t.weight" in state}
    rules: Rules = [
        (r"^conv1\.", "features.0."),
        (r"^conv2\.", "features.2."),
        (r"^conv3\.", "features.3."),
        (r"^inception(\d\w)\.", lambda m: f"features.{_FEATURES[m[1]]}."),
        (r"\.branch(\d)\.", lambda m: f".branch{int(m[1]) - 1}."),
        (r"^fc\.", "classifier.1."),
    ]
    plain = by_rules({name: state[name] for name in state if name not in split}, rules, _PAIR, network="S3D")
    halves = by_rules({name: state[name] for name in split}, rules, _SPLIT, network="S3D")
    return Reading(
        network="S3D",
        state={**plain.state, **halves.state},
        names={**plain.names, **halves.names},
        candidates=(Candidate(model="s3d_ibm"),),
    )


def _i3d_resnet(state: State) -> Reading | None:
    """Return the reading of a ResNet of 3x3x3 kernels, which IBM calls I3D-ResNet."""
    stem, first = state.get("conv1.weight"), state.get("layer1.0.conv1.weight")
    if stem is None or first is None or first.ndim != 5 or stem.shape[2:] != (3, 7, 7):
        return None
    if has(state, r"layer1\.0\.conv1_t\."):
        return None
    depth = resnet_depth(state, r"layer{}\.(\d+)\.")
    candidates = (Candidate(model=f"r3d_{depth}", options={"stem_pool": True}),)
    return by_rules(state, _R3D, network="I3D-ResNet", candidates=candidates)


LAYOUTS = (
    Layout(name="IBM", read=_blvnet),
    Layout(name=AS_IT_IS, read=_tam),
    Layout(name="IBM's action-recognition-pytorch", read=_inception),
    # Its names are those of many programs: the last of these to be asked.
    Layout(name="IBM's I3D-ResNet", read=_i3d_resnet, order=1),
)
