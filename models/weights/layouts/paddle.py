"""Names of PaddlePaddle's SlowFast, in its files ``.pdparams``."""

from __future__ import annotations

from dataclasses import replace

from ..layout import Layout, Reading, Rules, State, by_rules, has, renamed
from .pyslowfast import NAMES, slowfast_candidates

# To PySlowFast's names, from which the program was written.
_NAMES: Rules = [
    (r"^backbone\.", ""),
    (r"\._(conv|bn|conv_f2s)\.", r".\1."),
    (r"\._mean$", ".running_mean"),
    (r"\._variance$", ".running_var"),
]
_CLASSIFIER = "head.weight"


def _read(state: State) -> Reading | None:
    if not has(state, r"(backbone\.)?s1\.pathway0_stem\._conv\."):
        return None
    named = {renamed(name, _NAMES): tensor for name, tensor in state.items()}
    reading = by_rules(state, _NAMES, NAMES, network="SlowFast", candidates=slowfast_candidates(named))
    tensors = dict(reading.state)
    if _CLASSIFIER in tensors:
        # Linear layers of Paddle hold (features, classes).
        tensors[_CLASSIFIER] = tensors[_CLASSIFIER].t().contiguous()
    return replace(reading, state=tensors)


LAYOUTS = (Layout(name="PaddlePaddle", read=_read),)
