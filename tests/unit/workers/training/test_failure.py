"""What kind of failure an exception is, from real exceptions where they can be had."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import lmdb
import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from data import DatasetError, DatasetSpec, open_dataset
from hpo.spec import TrainingConfig
from hpo.trial import FailureKind, Fault
from models import ModelError, WeightsUnavailableError, create_model
from workers.errors import DivergedError, TimeLimitError
from workers.training.failure import MESSAGE_CHARACTERS, classify, ran_out_of_memory
from workers.training.faults import memory_was_short
from workers.training.model import build_model

from ..tiny import tiny_config

EXBIBYTE = 2**60


def _raised(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the test is about
        call()
    assert isinstance(caught.value, Exception)
    return caught.value


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(EXBIBYTE, dtype=torch.uint8), lambda: np.empty(EXBIBYTE, dtype=np.uint8)],
    ids=["torch", "numpy"],
)
def test_a_real_allocation_failure_on_the_cpu_is_oom(allocate: Callable[[], Any]) -> None:
    failure = classify(_raised(allocate))
    assert failure.kind is FailureKind.OOM
    assert failure.message.startswith("the trial did not fit into memory: ")
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_what_gpus_and_the_system_say_about_memory_is_oom(error: Exception) -> None:
    assert classify(error).kind is FailureKind.OOM


def test_words_about_memory_in_other_errors_are_not_oom() -> None:
    assert classify(KeyError("out of memory")).kind is FailureKind.ERROR


def test_divergence_and_time_keep_their_sentences() -> None:
    assert classify(DivergedError("the loss became nan")).kind is FailureKind.DIVERGED
    assert classify(TimeLimitError("too long")).kind is FailureKind.TIMEOUT


def test_a_configuration_that_does_not_validate_is_invalid_and_names_the_field() -> None:
    failure = classify(_raised(lambda: TrainingConfig.from_flat({"lr": -1, "model.x": [1]})))
    assert failure.kind is FailureKind.INVALID
    assert failure.message.startswith("the configuration is not valid: ")
    assert "lr: " in failure.message
    assert "model.x" in failure.message
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "build",
    [
        lambda: create_model("no_such_model", num_classes=2),
        lambda: build_model(tiny_config(**{"model.alpha": 4, "model.beta_inv": 3}), num_classes=2),
        lambda: build_model(tiny_config(**{"model.weights": "/etc/passwd"}), num_classes=2),
        lambda: build_model(tiny_config(**{"model.num_classes": 7}), num_classes=2),
        lambda: build_model(tiny_config(), num_classes=2)(torch.zeros(1, 3, 7, 24, 24)),
    ],
    ids=["name", "combination", "weights", "classes", "clip"],
)
def test_a_model_that_cannot_be_built_or_fed_is_invalid(build: Callable[[], Any]) -> None:
    failure = classify(_raised(build))
    assert failure.kind is FailureKind.INVALID
    assert "Traceback" not in failure.message


def test_a_missing_data_set_is_the_machines_and_names_its_folder(tmp_path: Path) -> None:
    missing = DatasetSpec(root=str(tmp_path / "nowhere"))
    failure = classify(_raised(lambda: open_dataset(missing, cache_dir=tmp_path)))
    assert failure.kind is Fault.FILES
    assert str(tmp_path / "nowhere") in failure.message
    assert "Traceback" not in failure.message


def test_weights_that_are_not_on_this_machine_are_the_machines() -> None:
    failure = classify(WeightsUnavailableError("there is no weights file 'k400.pth' in /weights: put it there"))
    assert (failure.kind, failure.message) == (
        Fault.FILES,
        "there is no weights file 'k400.pth' in /weights: put it there",
    )


def test_a_cache_folder_that_cannot_be_made_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in its place")
    failure = classify(_raised(lambda: open_dataset(DatasetSpec(root=str(tmp_path)), cache_dir=tmp_path / "file")))
    assert failure.kind is Fault.STORAGE
    assert "cannot be used for the cache" in failure.message


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("CUDA error: uncorrectable ECC error encountered", Fault.DEVICE),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", Fault.DEVICE),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", Fault.DEVICE),
        ("No CUDA GPUs are available", Fault.DEVICE),
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", Fault.DEVICE),
        ("The NVIDIA driver on your system is too old (found version 12020).", Fault.DEVICE),
        ("CUDA error: unknown error", Fault.DEVICE),
        ("CUDA error: no kernel image is available for execution on the device", Fault.ARCHITECTURE),
        ("CUDA error: an illegal memory access was encountered", Fault.KERNEL),
        ("CUDA error: unspecified launch failure", Fault.KERNEL),
        ("FIND was unable to find an engine to execute this computation", Fault.KERNEL),
        ("GET was unable to find an engine to execute this computation", Fault.KERNEL),
        ("Unable to find a valid cuDNN algorithm to run convolution", Fault.KERNEL),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", Fault.KERNEL),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", Fault.KERNEL),
        ("can't start new thread", Fault.SYSTEM),
        ("CUDA error: uncorrectable NVLink error detected during the execution", Fault.DEVICE),
        ("CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error", Fault.DEVICE),
        ("Unable to determine the device handle for GPU0000:07:00.0: GPU has fallen off the bus.", Fault.DEVICE),
        ("NVRM: Xid (PCI:0000:07:00): 79, pid=1, GPU has fallen off", Fault.DEVICE),
        ("CUDA error: OS call failed or operation not supported on this OS", Fault.DEVICE),
        ("CUDA error: context is destroyed", Fault.DEVICE),
        ("CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server", Fault.DEVICE),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART", Fault.KERNEL),
        ("cuDNN error: CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED", Fault.SYSTEM),
        ("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error", Fault.KERNEL),
        ("unable to open shared memory object </torch_7> in read-write mode: Too many open files (24)", Fault.SYSTEM),
        ("Too many open files. Communication with the workers is no longer possible", Fault.SYSTEM),
        ("received 0 items of ancdata", Fault.SYSTEM),
        ("unable to write to file </torch_7>: No space left on device (28)", Fault.STORAGE),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", Fault.STORAGE),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", Fault.PROCESS),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", Fault.PROCESS),
    ],
)
def test_what_cuda_says_of_a_machine_is_a_fault_of_the_machine(words: str, fault: Fault) -> None:
    assert classify(RuntimeError(words)).kind is fault
    assert classify(ValueError(words)).kind is FailureKind.ERROR, "only PyTorch speaks of the machine"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: invalid argument",
        "CUDA error: invalid configuration argument",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
        "cuDNN error: CUDNN_STATUS_BAD_PARAM",
        "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`",
        "mat1 and mat2 shapes cannot be multiplied (4x7 and 8x2)",
        "Given groups=1, weight of size [8, 3, 3, 3, 3], expected input to have 3 channels, but got 5 channels instead",
    ],
)
def test_what_a_configuration_causes_is_an_error_of_the_trial(words: str) -> None:
    assert classify(RuntimeError(words), on_gpu=True).kind is FailureKind.ERROR
    assert classify(torch.AcceleratorError(words), on_gpu=True).kind is FailureKind.ERROR


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.AcceleratorError("CUDA error: uncorrectable NVLink error detected during the execution"), Fault.DEVICE),
        (torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: x"), Fault.DEVICE),
        (sqlite3.OperationalError("database or disk is full"), Fault.STORAGE),
        (sqlite3.OperationalError("disk I/O error"), Fault.STORAGE),
        (sqlite3.OperationalError("attempt to write a readonly database"), Fault.STORAGE),
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), Fault.STORAGE),
        (lmdb.Error("/cache/frames: Input/output error"), Fault.STORAGE),
        (SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)"), Fault.STORAGE),
        (av.error.OSError(errno.EIO, "Input/output error"), Fault.STORAGE),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/frames"), Fault.STORAGE),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/checkpoints/1/2"), Fault.STORAGE),
    ],
)
def test_libraries_that_report_a_device_or_a_disk_in_exceptions_of_their_own(error: Exception, fault: Fault) -> None:
    failure = classify(error)
    assert failure.kind is fault
    assert failure.message.startswith(f"this machine failed, not the trial ({type(error).__name__}: ")
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("unable to mmap 1024 bytes from file </torch_7>: Cannot allocate memory (12)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    ],
)
def test_main_memory_that_is_missing_is_the_machines_where_a_gpu_trains(error: Exception) -> None:
    """Another machine has more, and smaller batches on the GPU would change nothing."""
    failure = classify(error, on_gpu=True)
    assert failure.kind is Fault.SYSTEM
    assert failure.message.startswith("the main memory of this machine, not of its GPU, is full (")
    assert not ran_out_of_memory(error, torch.device("cuda"))
    assert classify(error).kind is FailureKind.OOM
    assert ran_out_of_memory(error, torch.device("cpu"))


def test_a_library_that_finds_no_memory_on_the_gpu_is_oom() -> None:
    error = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
    assert classify(error, on_gpu=True).kind is FailureKind.OOM


def test_a_wheel_without_kernels_for_the_gpu_is_named() -> None:
    failure = classify(RuntimeError("CUDA error: no kernel image is available for execution on the device"))
    assert failure.message.startswith(
        "the PyTorch of this machine was built without kernels for its GPU (CUDA error: no"
    )
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_a_convolution_without_an_engine_is_oom_where_memory_was_short(words: str) -> None:
    failure = classify(RuntimeError(words), memory_was_short=lambda: True)
    assert failure.kind is FailureKind.OOM
    assert failure.message == f"the trial did not fit into memory: {words}"


def test_short_memory_does_not_explain_other_errors() -> None:
    ecc = RuntimeError("CUDA error: uncorrectable ECC error encountered")
    assert classify(ecc, memory_was_short=lambda: True).kind is Fault.DEVICE
    assert classify(ValueError("x"), memory_was_short=lambda: True).kind is FailureKind.ERROR


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        *((number, Fault.STORAGE) for number in (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EROFS, errno.EDQUOT)),
        *((number, Fault.SYSTEM) for number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN)),
    ],
)
def test_what_the_system_says_of_a_machine_is_a_fault_wherever_it_stands(number: int, fault: Fault) -> None:
    error = OSError(number, "it failed", "/data/clip.avi")
    assert classify(error).kind is fault
    for kind in (ModelError, DatasetError, RuntimeError):
        wrapped = kind("around it")
        wrapped.__cause__ = error
        assert classify(wrapped).kind is fault, "as the cause of another"
        wrapped = kind("around it")
        wrapped.__context__ = error
        assert classify(wrapped).kind is fault, "as what another was raised after"


def test_any_other_error_of_the_system_is_not_the_configurations() -> None:
    assert classify(FileNotFoundError(errno.ENOENT, "No such file", "/cache/frames")).kind is Fault.STORAGE
    assert classify(OSError("libcudnn.so.9: cannot open shared object file")).kind is Fault.SYSTEM


class FakeCuda:
    """The memory of a GPU as PyTorch counts it, in bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
        self.stats = {"num_ooms": values.get("ooms", 0), "num_alloc_retries": values.get("retries", 0)}
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: self.stats)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (values["free"], values["total"]))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: values["reserved"])
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: values["peak"])


@pytest.mark.parametrize(
    ("values", "short"),
    [
        ({"free": 50, "reserved": 40, "peak": 40}, False),
        ({"free": 5, "reserved": 85, "peak": 85}, True),
        ({"free": 60, "reserved": 30, "peak": 88}, True),  # freed since, but not at the peak
        ({"free": 5, "reserved": 10, "peak": 10}, True),  # another program has the rest
        ({"free": 50, "reserved": 40, "peak": 40, "ooms": 1}, True),  # the workspace asked for was larger
        ({"free": 50, "reserved": 40, "peak": 40, "retries": 1}, True),
    ],
)
def test_memory_was_short_where_an_allocation_failed_or_little_was_left_at_the_peak(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, int], short: bool
) -> None:
    FakeCuda(monkeypatch, total=100, **values)
    assert memory_was_short(torch.device("cuda")) is short
    assert not memory_was_short(torch.device("cpu"))


def test_of_a_gpu_that_does_not_answer_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    FakeCuda(monkeypatch, total=100, free=1, reserved=99, peak=99)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    assert not memory_was_short(torch.device("cuda"))


def _deep(depth: int) -> None:
    if depth == 0:
        raise ValueError("at the bottom\nof the well")
    try:
        _deep(depth - 1)
    except ValueError as error:
        raise ValueError(f"level {depth}") from error


def test_any_other_exception_keeps_its_traceback_within_bounds() -> None:
    failure = classify(_raised(lambda: _deep(200)))
    assert failure.kind is FailureKind.ERROR
    assert failure.message.splitlines()[0] == "ValueError: level 200"
    assert len(failure.message) <= MESSAGE_CHARACTERS
    assert "at the bottom" in failure.message
    assert failure.message.rstrip().endswith("ValueError: level 200")
