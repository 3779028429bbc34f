"""Names of 3D-ResNets-PyTorch by Hara et al.: R3D and R(2+1)D."""

from __future__ import annotations

from ...card import Value
from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, count, has, refused

_R3D: Rules = [
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"\.conv([123])\.", r".conv\1.0."),
    (r"\.bn([123])\.", r".conv\1.1."),
]
_R2PLUS1D: Rules = [
    (r"^conv1_s\.", "stem.0."),
    (r"^bn1_s\.", "stem.1."),
    (r"^conv1_t\.", "stem.3."),
    (r"^bn1_t\.", "stem.4."),
    (r"\.conv([12])_s\.", r".conv\1.0.0."),
    (r"\.bn([12])_s\.", r".conv\1.0.1."),
    (r"\.conv([12])_t\.", r".conv\1.0.3."),
    (r"\.bn([12])_t\.", r".conv\1.1."),
    # The 1x1x1 convolutions of bottlenecks.
    (r"\.conv([13])\.(\w+)$", r".conv\1.0.\2"),
    (r"\.bn([13])\.", r".conv\1.1."),
]
_DEPTHS = {(2, 2): 18, (4, 6): 34, (4, 23): 101}


def _read(state: State) -> Reading | None:
    split = has(state, r"conv1_s\.weight") and has(state, r"layer1\.0\.conv[12]_s\.")
    if not split and not _full(state):
        return None
    network = "R(2+1)D" if split else "R3D"
    blocks = (count(state, r"layer2\.(\d+)\."), count(state, r"layer3\.(\d+)\."))
    deep = has(state, r"layer1\.0\.conv3\.")
    depth = 50 if deep and blocks == (4, 6) else _DEPTHS.get(blocks, 0)
    if (depth > 34) != deep or depth not in ((18, 34, 50) if split else (18, 34, 50, 101)):
        sentence = (
            f"it is {network} with {blocks[0]} and {blocks[1]} blocks in its middle stages, of which there is no "
        )
        return refused(network, f"{sentence}model here; 3D-ResNets-PyTorch runs it")
    options: dict[str, Value] = {} if has(state, r"layer2\.0\.downsample\.") else {"shortcut": "padding"}
    model = f"r2plus1d_{depth}_hara" if split else f"r3d_{depth}_hara"
    rules = _R2PLUS1D if split else _R3D
    return by_rules(state, rules, network=network, candidates=(Candidate(model=model, options=options),))


def _full(state: State) -> bool:
    """Return whether the file has full kernels behind a stem of seven frames, the program's default."""
    stem, first = state.get("conv1.weight"), state.get("layer1.0.conv1.weight")
    return stem is not None and stem.shape[2:] == (7, 7, 7) and first is not None and first.ndim == 5


LAYOUTS = (Layout(name="3D-ResNets-PyTorch", read=_read),)
