"""Reading tensors by name from files of other programs, without executing code in them.

PyTorch's files are limited to tensors and plain containers (``weights_only``), pickles of Caffe2 and Paddle to arrays
(by our unpickler); safetensors hold nothing else, and MATLAB's are read by SciPy, which only builds arrays and records.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import WeightsError
from .formats import ARRAYS, MATLAB, SAFETENSORS, TORCH, format_of

# Keys of the state dict in checkpoints that also hold epochs, optimizers and scores. A moving average is taken only
# where it is alone.
_WRAPPERS = (
    "state_dict",
    "model_state",
    "model_state_dict",
    "model",
    "module",
    "state",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "net",
    "network",
    "weights",
)
# Classes in checkpoints of known trainers that are neither needed nor run: their objects are left empty.
_IGNORED = (
    "fvcore.common.config.CfgNode",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "yacs.config.CfgNode",
)
# Prefixes that wrappers of a model add to all of its names.
_PREFIXES = ("module.", "model.", "_orig_mod.", "ema_model.")
# What checkpoints of Lightning have beside the state dict, whatever else they have.
_OF_LIGHTNING = "pytorch-lightning_version"
# What such a wrapper counts for itself: PyTorch's AveragedModel.
_COUNTERS = ("n_averaged",)
# A tensor may repeat the numbers that a file holds of it (`expand`), but not fill the memory with them.
_REPEATED_BYTES = 2**24
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


@dataclass(frozen=True, kw_only=True, slots=True)
class StateFile:
    """What a file of tensors holds."""

    tensors: dict[str, Tensor]
    """Those of the network by name, without what wrappers put in front of all names."""
    beside: dict[str, Tensor] = field(default_factory=dict)
    """What a module of Lightning has beside its network, unchecked: weights of a loss, counters of scores."""


def read_state(path: Path) -> StateFile:
    """Return a file's tensors by name: of PyTorch, plain or inside a checkpoint, of safetensors, Caffe2 or Paddle.

    Raises WeightsError for any file that cannot be read, and for a tensor that is not of plain numbers, or that holds
    NaN, infinity or a negative variance.
    """
    kind = format_of(path)
    if kind == MATLAB:
        raise WeightsError(f"{path} cannot be read: it is of MATLAB, so its name must end in .mat")
    content = _guarded(_READERS[kind], path)
    state = _unwrapped(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{path} does not contain a state dict, which maps names to tensors, but {_described(state)}: "
            "save one with torch.save(model.state_dict(), path)"
        )
    plain = {str(name): tensor for name, tensor in state.items() if name not in _COUNTERS}
    beside = _beside_network(plain) if isinstance(content, Mapping) and _OF_LIGHTNING in content else {}
    plain = {name: tensor for name, tensor in plain.items() if name not in beside}
    while prefix := next((one for one in _PREFIXES if all(name.startswith(one) for name in plain)), None):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    for name, tensor in plain.items():
        _check_tensor(path, name, tensor)
    return StateFile(tensors=plain, beside=beside)


def _beside_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what is outside of ``model.``, where a module of Lightning has its network; nothing if it has none."""
    outside = {name: tensor for name, tensor in state.items() if not name.startswith("model.")}
    return outside if len(outside) < len(state) else {}


def _described(content: object) -> str:
    """Return a few words on what a file holds instead of tensors by name."""
    if isinstance(content, Tensor):
        return "one tensor"
    if not isinstance(content, Mapping):
        return f"an object of the type {type(content).__name__}"
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    return f"other things as well, such as {others[0]!r}" if others else "nothing"


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Raise WeightsError unless a tensor holds plain numbers that float32 can hold."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        what = f"{tensor.dtype} on {tensor.device}, {tensor.layout}".replace("torch.", "")
        raise WeightsError(
            f"{path} cannot be read: its tensor {name} is not of plain numbers ({what}); save the model in float32"
        )
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > max(held, _REPEATED_BYTES):
        raise WeightsError(
            f"{path} is damaged: its tensor {name} of {tuple(tensor.shape)} has {held} bytes in the file"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise WeightsError(f"{path} is damaged: its tensor {name} holds NaN or infinity, or more than float32 can hold")
    if name.endswith("running_var") and (tensor.float() < 0).any():
        raise WeightsError(f"{path} is damaged: its tensor {name} holds negative variances")


def read_matconvnet(path: Path) -> list[MatLayer]:
    """Return the layers with parameters of a MatConvNet DagNN file; raise WeightsError for other files."""
    if format_of(path) != MATLAB:
        raise WeightsError(f"{path} cannot be read: it is not a file of MATLAB, though its name ends in .mat")
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
    if not layers:
        raise WeightsError(f"{path} does not contain a MatConvNet DagNN with parameters")
    for layer in layers:
        for array in layer.arrays:
            _check_array(path, layer.name, array)
    return layers


def _check_array(path: Path, layer: str, array: np.ndarray[Any, Any]) -> None:
    """Raise WeightsError unless an array holds numbers that float32 can hold."""
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"{path} cannot be read: its layer {layer} holds {array.dtype}, not numbers")
    _check_tensor(path, layer, torch.from_numpy(np.asarray(array, dtype=np.float64)))


def _guarded(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except Exception as error:
        # Depending on its bytes, a damaged file can make a reader raise any error.
        code = re.search(r"GLOBAL (\S+) was not an allowed global|(\S+) is not allowed in a weights file", str(error))
        why = f"since it names {code[1] or code[2]}, which could run code; " if code else ""
        what = f"{why}save one with torch.save(model.state_dict(), path)"
        if not code:
            what = "probably because it is cut short or damaged: copy or download it again"
        raise WeightsError(
            f"{path} cannot be read as a state dict of tensors ({type(error).__name__}), {what}"
        ) from error


class _Ignored(dict[Any, Any]):
    """Stands for an object of a trainer's class; takes every argument and state, and keeps none."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def _read_torch(path: Path) -> object:
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # before PyTorch 1.6 files were none
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("it holds more than its size, as no file of torch.save does")
    # Many checkpoints also hold a best score as a NumPy number, or the arguments of the program.
    numpy_core = np._core  # type: ignore[attr-defined]  # private, but the names in the files
    known: list[Any] = [argparse.Namespace, np.dtype, np.ndarray, np.dtypes.Float64DType, np.dtypes.Float32DType]
    known += [np.dtypes.Int64DType]
    for package in ("numpy.core", "numpy._core"):
        known.append((numpy_core.multiarray.scalar, f"{package}.multiarray.scalar"))
        known.append((numpy_core.multiarray._reconstruct, f"{package}.multiarray._reconstruct"))
    known += [(_Ignored, name) for name in _IGNORED]
    with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_arrays(path: Path) -> object:
    """Return the arrays of a pickle: Caffe2's blobs, or Paddle's, which may be pairs of an inner name and an array."""
    with path.open("rb") as file:
        content = _ArrayUnpickler(file).load()
    if not isinstance(content, Mapping):
        return content
    blobs = content.get("blobs", content)
    arrays = {str(name): value[1] if isinstance(value, tuple) else value for name, value in blobs.items()}
    return {
        name: torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and not name.endswith(_NOT_WEIGHTS)
    }


_READERS: dict[str, Callable[[Path], Any]] = {
    TORCH: _read_torch,
    SAFETENSORS: load_file,
    ARRAYS: _read_arrays,
}


def _read_matlab(path: Path) -> Any:
    from scipy.io import loadmat

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
        "_reconstruct": _empty_array,
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


def _empty_array(kind: type, shape: tuple[int, ...], dtype: object) -> np.ndarray[Any, Any]:
    """Return what NumPy's `_reconstruct` does: the array that its numbers are put into afterwards, always an empty one.

    A file of a few bytes could ask for one that fills the memory.
    """
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"an array begins empty, not of the shape {shape}")
    return np.ndarray((0,), np.int8)


def _latin1(text: str, encoding: str) -> bytes:
    """Return what ``codecs.encode`` does: bytes of Python 2 are pickled as latin-1 text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as latin1, not {encoding!r}")
    return text.encode("latin1")
