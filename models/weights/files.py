"""Reading tensors by name from files of other programs, without executing code in them.

PyTorch's files are limited to tensors and plain containers (``weights_only``), Caffe2's pickles to arrays (by our
unpickler); MATLAB's are read by SciPy, which only builds arrays and records.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError

# Keys of the state dict in checkpoints that also hold epochs, optimizers and scores.
_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "state")
# Prefixes that wrappers of a model add to all of its names.
_PREFIXES = ("module.", "model.", "_orig_mod.")
# Suffixes of Caffe2's solver state and counters, which are not weights.
_NOT_WEIGHTS = ("_momentum", "lr", "model_iter")


@dataclass(frozen=True, kw_only=True, slots=True)
class MatLayer:
    """A layer of a MatConvNet network that has parameters, in the order of the file."""

    name: str
    kind: str
    """``"conv"`` or ``"norm"``."""
    arrays: tuple[np.ndarray[Any, Any], ...]
    """Filters (H, W, I, O), without axes of length one, and maybe a bias; or scale, shift and moments (C, 2)."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors by name: of PyTorch, plain or inside a checkpoint, or of Caffe2's ``.pkl``.

    Raises WeightsError for any file that cannot be read.
    """
    content = _guarded(_read_caffe2 if path.suffix == ".pkl" else _read_torch, path)
    state = _unwrapped(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} does not contain a state dict: it must map names to tensors")
    plain = {str(name): tensor for name, tensor in state.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in plain):
            plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return plain


def read_matconvnet(path: Path) -> list[MatLayer]:
    """Return the layers with parameters of a MatConvNet DagNN file; raise WeightsError for other files."""
    network = _guarded(_read_matlab, path)
    try:
        values = {str(parameter.name): np.asarray(parameter.value) for parameter in np.atleast_1d(network.params)}
        layers = [
            MatLayer(
                name=str(layer.name),
                kind={"Conv": "conv", "BatchNorm": "norm"}[str(layer.type).rpartition(".")[2]],
                arrays=tuple(values[str(name)] for name in np.atleast_1d(layer.params)),
            )
            for layer in np.atleast_1d(network.layers)
            if np.size(layer.params)
        ]
    except (AttributeError, KeyError) as error:
        raise WeightsError(
            f"{path} does not contain a MatConvNet DagNN of convolutions and batch norms ({error})"
        ) from error
    return layers


def _guarded(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except FileNotFoundError:
        raise WeightsError(f"the weights file {path} does not exist") from None
    except Exception as error:
        # Depending on its bytes, a damaged file can make a reader raise any error.
        raise WeightsError(
            f"{path} cannot be read as a state dict of tensors ({type(error).__name__}); "
            "save one with torch.save(model.state_dict(), path)"
        ) from error


def _read_torch(path: Path) -> object:
    # Many checkpoints also hold a best score as a NumPy number.
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # a private name, but the one in the files
    known: list[Any] = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    with torch.serialization.safe_globals([*known, *((scalar, name) for name in names)]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_caffe2(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        content = _ArrayUnpickler(file).load()
    blobs = content.get("blobs", content)
    return {
        str(name): torch.from_numpy(np.array(array))
        for name, array in blobs.items()
        if isinstance(array, np.ndarray) and not str(name).endswith(_NOT_WEIGHTS)
    }


def _read_matlab(path: Path) -> Any:
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(path)
    content = loadmat(str(path), struct_as_record=False, squeeze_me=True)
    if "net" in content:
        return content["net"]
    # Saved with -struct: the network's fields are the file's variables.
    return type("Network", (), {key: value for key, value in content.items() if not key.startswith("_")})


def _unwrapped(content: object) -> object:
    """Return the state dict inside a checkpoint, or the content itself."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return content
        content = inner
    return content


def _array_globals() -> dict[str, Any]:
    numpy_core = np._core  # type: ignore[attr-defined]  # private, but what pickled arrays name
    multiarray: dict[str, Any] = {
        "_reconstruct": numpy_core.multiarray._reconstruct,
        "scalar": numpy_core.multiarray.scalar,
    }
    known: dict[str, Any] = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "collections.OrderedDict": OrderedDict,
    }
    for package in ("numpy.core", "numpy._core"):
        known |= {f"{package}.multiarray.{name}": value for name, value in multiarray.items()}
        known[f"{package}.numeric._frombuffer"] = numpy_core.numeric._frombuffer
    return known


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays, numbers, strings and their containers, also of Python 2, and refuses everything else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self._known = _array_globals()

    def find_class(self, module: str, name: str) -> Any:
        """Return the object for a name that pickled arrays need; refuse all other names."""
        full = f"{module}.{name}"
        if full == "_codecs.encode":
            return _latin1
        if full not in self._known:
            raise pickle.UnpicklingError(f"{full} is not allowed in a weights file")
        return self._known[full]


def _latin1(text: str, encoding: str) -> bytes:
    """Return what ``codecs.encode`` does: bytes of Python 2 are pickled as latin-1 text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as latin1, not {encoding!r}")
    return text.encode("latin1")
