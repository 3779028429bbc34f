"""Names of MIT's temporal-shift-module and of tsn-pytorch: ``base_model.`` and ``new_fc.``."""

from __future__ import annotations

from ...card import Value
from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, has, refused, resnet_depth

_NAMES: Rules = [
    (r"^base_model\.", ""),
    # The shift wraps a convolution or a block, which gets the name "net" inside.
    (r"^(layer\d\.\d+\.(?:block\.)?conv1)\.net\.", r"\1."),
    (r"^(layer\d\.\d+)\.net\.", r"\1."),
    (r"^(layer\d\.\d+)\.block\.", r"\1."),
    (r"\.nl\.(g|phi)\.0\.", r".nl.\1."),
    (r"\.nl\.W\.0\.", ".nl.out."),
    (r"\.nl\.W\.1\.", ".nl.norm."),
    (r"^new_fc\.", "fc."),
]


def _read(state: State) -> Reading | None:
    if not has(state, r"base_model\."):
        return None
    if has(state, r"base_model\.(conv1_7x7_s2|inception_3a)"):
        return refused("TSN on BN-Inception", "it is TSN on BN-Inception; MIT's temporal-shift-module runs it")
    if has(state, r"base_model\.features\.0\.0\."):
        return refused("TSM on MobileNet v2", "it is TSM on MobileNet v2; MIT's temporal-shift-module runs it")
    if has(state, r"base_model\.layer2\.net\."):
        return refused(
            "TSM with a temporal pool",
            "it halves the images once, before the second stage, which no model here does; "
            "MIT's temporal-shift-module runs it",
        )
    return _resnet(state) if has(state, r"base_model\.layer1\.0\.") else None


def _resnet(state: State) -> Reading:
    depth = resnet_depth(state, r"base_model\.layer{}\.(\d+)\.")
    in_branch = has(state, r"base_model\.layer1\.0\.conv1\.net\.")
    around_block = has(state, r"base_model\.layer1\.0\.net\.")
    if not in_branch and not around_block:
        return by_rules(state, _NAMES, network="TSN", candidates=(Candidate(model=f"tsn_resnet{depth}"),))
    options: dict[str, Value] = {
        "shift_place": "branch" if in_branch else "block",
        "shift_divisor": 8,
        # Around blocks its program shifts before each, also in 101 layers.
        "shift_every": 1 if has(state, r"base_model\.layer1\.1\.(conv1\.)?net\.") else 2,
    }
    if has(state, r"base_model\.layer\d\.\d+\.nl\."):
        options["non_local_form"] = "tsm"
    candidates = (Candidate(model=f"tsm_resnet{depth}", options=options),)
    return by_rules(state, _NAMES, network="TSM", candidates=candidates)


LAYOUTS = (Layout(name="MIT's temporal-shift-module", read=_read),)
