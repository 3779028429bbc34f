"""Compiled blocks: the same curve and the same checkpoint as without, and without them wherever compiling fails."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Dataset
from workers.training import compiled as compiled_module
from workers.training.checkpointing import checkpointed_parts, set_checkpointing
from workers.training.compiled import CompiledBlocks, cache_folder
from workers.training.memory_plan import MemoryPlan
from workers.training.reproducibility import Runtime
from workers.training.step import TrainingStep
from workers.training.trainer import Trainer

from ...models.tiny import clips, tiny
from ..tiny import tiny_config, without_timing

# PyTorch's compiler warns of what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL: dict[str, Any] = {"model": "r3d_18", "clip.size": 16, "dropout": 0.3}
HPARAMS: dict[str, Any] = {"width": 8}
WARNING = "updates are computed without compiled blocks: "
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep what is compiled, and what PyTorch is told, out of other tests."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    yield
    torch.compiler.reset()
    torch._dynamo.config.suppress_errors = False


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have blocks traced and differentiated by PyTorch's compiler but not made into machine code; the clips of each."""
    sizes: list[int] = []

    def by_tracing(_: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        from torch._dynamo.backends.debugging import aot_eager

        sizes.append(min(len(value) for value in inputs if isinstance(value, torch.Tensor) and value.ndim == 5))
        found: Callable[..., Any] = aot_eager(graph, inputs)
        return found

    monkeypatch.setattr(CompiledBlocks, "_by_inductor", by_tracing)
    return sizes


def trainer(dataset: Dataset, runtime: Runtime, *, compile: bool = True, epochs: int = 2, **changes: Any) -> Trainer:
    config = tiny_config(**{**SMALL, **changes}).model_copy(update={"hparams": HPARAMS})
    made = replace(runtime, compile="blocks" if compile else None)
    return Trainer(config, epochs=epochs, dataset=dataset, runtime=made)


def run(one: Trainer, *, stop_at: int | None = None) -> Trainer:
    one.run(interrupted=lambda: one.epoch * len(one.loaders.train) + one.batch == stop_at, epoch_done=lambda _: None)
    return one


def curve(one: Trainer) -> list[dict[str, float]]:
    return [without_timing(result.metrics) for result in one.curve]


def blocks_of(one: Trainer) -> CompiledBlocks:
    blocks = one.training_step.compiled
    assert blocks is not None
    return blocks


def assert_close(found: Trainer, expected: Trainer) -> None:
    ours, theirs = found.state(), expected.state()
    assert list(ours["model"]) == list(theirs["model"])
    for name, value in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], value, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours["random"]["torch"], theirs["random"]["torch"])
    for one, other in zip(curve(found), curve(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


def assert_same(found: Trainer, expected: Trainer) -> None:
    ours, theirs = found.state(), expected.state()
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert torch.equal(ours["random"]["torch"], theirs["random"]["torch"])
    assert curve(found) == curve(expected)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_a_second_trial_takes_what_the_first_has_compiled_and_both_train_as_without(
    dataset: Dataset, runtime: Runtime
) -> None:
    from torch._dynamo.utils import counters

    # With these few pixels, statistics of a batch turn rounding into another curve; gradients are compared below.
    frozen: dict[str, Any] = {"batch_norm": "freeze"}
    expected = run(trainer(dataset, runtime, compile=False, **frozen))
    counters.clear()
    first = run(trainer(dataset, runtime, **frozen))
    assert_close(first, expected)
    assert (first.compiled, blocks_of(first).problem) == ("blocks", None)
    assert blocks_of(first).graphs > 0
    assert counters["aot_autograd"]["autograd_cache_hit"] == 0
    counters.clear()
    second = run(trainer(dataset, runtime, **frozen))
    assert counters["aot_autograd"]["autograd_cache_hit"] == blocks_of(second).graphs == blocks_of(first).graphs
    assert counters["aot_autograd"]["autograd_cache_miss"] == 0
    assert_same(second, first)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_gradients_are_those_of_the_blocks_as_written() -> None:
    torch.manual_seed(0)
    model = tiny("r3d_18", dropout=0.0).train()
    inputs = clips(count=4, frames=8, size=32)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(inputs).square().sum().backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected, statistics = gradients(), {name: value.clone() for name, value in model.named_buffers()}
    model.load_state_dict(start)
    blocks = CompiledBlocks(model, "blocks", device=CPU)
    blocks.begin(lambda: len(gradients()) * 0 + 4)
    assert (blocks.in_force, blocks.problem) == ("blocks", None)
    model.load_state_dict(start)
    with blocks.in_use(4):
        found = gradients()
    for name, value in expected.items():
        assert float((found[name] - value).norm() / value.norm()) < 1e-3, name
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, statistics[name], rtol=1e-4, atol=1e-5)


def test_tracing_alone_changes_nothing_that_a_run_computes(
    dataset: Dataset, runtime: Runtime, traced: list[int]
) -> None:
    changes: dict[str, Any] = {"ema": 0.9, "precise_bn": True, "augment.mixup_alpha": 0.8}
    found = run(trainer(dataset, runtime, **changes))
    assert_close(found, run(trainer(dataset, runtime, compile=False, **changes)))
    assert found.compiled == "blocks"
    assert 0 < len(traced) <= len(checkpointed_parts(found.model))


def test_a_smaller_batch_and_a_validation_are_computed_as_written(
    dataset: Dataset, runtime: Runtime, traced: list[int]
) -> None:
    found = run(trainer(dataset, runtime, batch_size=5))
    assert dataset.num_fit % 5 != 0
    assert set(traced) == {5}
    assert_close(found, run(trainer(dataset, runtime, compile=False, batch_size=5)))


@pytest.mark.usefixtures("traced")
def test_a_run_that_continues_equals_one_that_was_not_interrupted(dataset: Dataset, runtime: Runtime) -> None:
    whole = run(trainer(dataset, runtime))
    cut = run(trainer(dataset, runtime), stop_at=2).state()
    continued = trainer(dataset, runtime)
    continued.load_state(cut)
    assert_same(run(continued), whole)


def test_layers_that_thaw_are_compiled_when_they_train(dataset: Dataset, runtime: Runtime, traced: list[int]) -> None:
    changes: dict[str, Any] = {"freeze": 3, "unfreeze_every": 1, "batch_norm": "freeze"}
    found = run(trainer(dataset, runtime, **changes))
    assert found.compiled == "blocks"
    assert_close(found, run(trainer(dataset, runtime, compile=False, **changes)))


def test_a_batch_in_parts_and_activations_computed_again_give_the_same_gradients(
    dataset: Dataset, runtime: Runtime, traced: list[int]
) -> None:
    def of_plan(compile: bool) -> Trainer:
        one = trainer(dataset, runtime, compile=compile, epochs=1)
        one.plan = MemoryPlan(batch_size=4, micro_batch=2, evaluation_batch=32, checkpointing=True)
        return run(one)

    found = of_plan(True)
    assert found.compiled == "blocks"
    assert set(traced) == {2}
    assert_close(found, of_plan(False))


def test_without_a_compiler_a_run_is_what_it_is_without_compiling(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config as settings

    monkeypatch.setattr(settings.cpp, "cxx", ("no-such-compiler",))
    found = run(trainer(dataset, runtime))
    assert found.compiled is None
    (warning,) = warnings_of(caplog)
    assert warning.startswith(WARNING)
    assert_same(found, run(trainer(dataset, runtime, compile=False)))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("at", [1, 3])
def test_a_piece_that_cannot_be_compiled_ends_compiling(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    tracing = CompiledBlocks._by_inductor

    def broken(blocks: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        if blocks.graphs + 1 >= at:
            raise NotImplementedError("no such operation\nand much more")
        return tracing(blocks, graph, inputs)

    monkeypatch.setattr(CompiledBlocks, "_by_inductor", broken)
    found = run(trainer(dataset, runtime))
    assert warnings_of(caplog) == [f"{WARNING}NotImplementedError: no such operation"]
    assert_same(found, run(trainer(dataset, runtime, compile=False)))


@pytest.mark.usefixtures("traced")
def test_a_piece_that_fails_only_later_leaves_the_run_whole(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changes: dict[str, Any] = {"freeze": 3, "unfreeze_every": 1, "epochs": 3}
    found = trainer(dataset, runtime, **changes)
    tracing = CompiledBlocks._by_inductor

    def later(blocks: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        if found.curve:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return tracing(blocks, graph, inputs)

    monkeypatch.setattr(CompiledBlocks, "_by_inductor", later)
    run(found)
    assert warnings_of(caplog) == [f"{WARNING}OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"]
    assert len(found.curve) == 3
    assert_close(found, run(trainer(dataset, runtime, compile=False, **changes)))


@pytest.mark.usefixtures("traced")
def test_what_is_computed_again_is_computed_as_before_where_compiling_ends_in_the_middle_of_an_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny("r3d_18", dropout=0.0).train()
    set_checkpointing(model, True)
    blocks = CompiledBlocks(model, "blocks", device=CPU)

    def update(size: int) -> int:
        model.zero_grad()
        model(clips(size=size)).sum().backward()
        return 2

    blocks.begin(lambda: update(16))
    assert (blocks.problem, blocks.graphs > 0) == (None, True)
    tracing, most = CompiledBlocks._by_inductor, blocks.graphs + 3

    def later(blocks: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        if blocks.graphs >= most:
            raise NotImplementedError("no such operation")
        return tracing(blocks, graph, inputs)

    monkeypatch.setattr(CompiledBlocks, "_by_inductor", later)
    with blocks.in_use(2):
        update(32)  # other shapes, as those of a smaller plan of memory
    assert blocks.problem == "NotImplementedError: no such operation"
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    with blocks.in_use(2):
        update(32)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4)


def test_a_block_that_needs_too_much_memory_is_computed_as_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = CompiledBlocks(tiny("r3d_18"), "blocks", device=CPU)

    def update() -> int:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    blocks.begin(update)
    assert warnings_of(caplog) == [f"{WARNING}compiled updates need more memory than there is"]
    assert blocks.in_force is None


def test_compiling_has_an_end(traced: list[int], caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("r3d_18").train()
    seen: list[int] = []
    blocks = CompiledBlocks(model, "blocks", device=CPU, seconds=0.0, each=lambda: seen.append(1))

    def update() -> int:
        model(clips()).sum().backward()
        return 2

    blocks.begin(update)
    assert (len(traced), len(seen)) == (1, 1)
    assert warnings_of(caplog) == [f"{WARNING}compiling took too long; what was compiled is kept for the next trial"]


def test_a_model_without_blocks_is_computed_as_written(caplog: pytest.LogCaptureFixture) -> None:
    blocks = CompiledBlocks(torch.nn.Linear(2, 2), "blocks", device=CPU)
    blocks.begin(lambda: 1)
    assert warnings_of(caplog) == [f"{WARNING}no block of this model can be compiled"]


def test_checkpointing_and_compiling_are_put_on_and_off_in_any_order(traced: list[int]) -> None:
    model = tiny("r3d_18")
    names = list(model.state_dict())
    blocks = CompiledBlocks(model, "blocks", device=CPU)
    set_checkpointing(model, True)
    blocks.begin(lambda: len(model(clips())))
    wrapped = {part: vars(part)["forward"] for part in checkpointed_parts(model)}
    set_checkpointing(model, True)
    assert wrapped == {part: vars(part)["forward"] for part in checkpointed_parts(model)}
    set_checkpointing(model, False)
    assert list(model.state_dict()) == names
    with blocks.in_use(2):
        found = model.eval()(clips())
    torch.testing.assert_close(found, model(clips()))


@pytest.mark.parametrize(
    ("hinder", "said"),
    [(None, "they need a GPU"), ("several GPUs train together", "several GPUs train together")],
)
def test_graphs_become_compiled_blocks_where_they_cannot_be_used(
    traced: list[int], caplog: pytest.LogCaptureFixture, hinder: str | None, said: str
) -> None:
    model = tiny("r3d_18")
    blocks = CompiledBlocks(model, "graphs", device=CPU)
    blocks.begin(lambda: len(model(clips())), graphs_hinder=hinder)
    assert warnings_of(caplog) == [f"CUDA graphs are not used: {said}"]
    assert blocks.in_force == "blocks"


def failing_in_second_epoch(monkeypatch: pytest.MonkeyPatch, one: Trainer, *, times: int) -> None:
    """Have memory run out in the first updates of the second epoch, which a GPU would have come to with graphs."""
    forward, left = TrainingStep._loss, [True] * times

    def failing(step: TrainingStep, batch: Any) -> Any:
        if step is one.training_step and one.curve and left:
            if len(left) == times:
                blocks_of(one).mode = "graphs"
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand much more")
        return forward(step, batch)

    monkeypatch.setattr(TrainingStep, "_loss", failing)


def test_where_memory_runs_out_graphs_become_compiled_blocks_and_the_batch_stays_whole(
    dataset: Dataset,
    runtime: Runtime,
    traced: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = trainer(dataset, runtime)
    run(whole)
    compiled = len(traced)
    one = trainer(dataset, runtime)
    failing_in_second_epoch(monkeypatch, one, times=1)
    run(one)
    assert warnings_of(caplog) == [
        f"CUDA graphs are not used any more: out of memory at update {len(one.loaders.train)} "
        "(CUDA out of memory. Tried to allocate 2 GiB)"
    ]
    assert (one.compiled, one.plan) == ("blocks", whole.plan)
    assert len(traced) == 3 * compiled, "what was compiled for graphs is dropped with their memory"
    assert_same(one, whole)


@pytest.mark.usefixtures("traced")
def test_where_memory_runs_out_again_the_batch_is_split_and_blocks_stay_compiled(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer(dataset, runtime, batch_norm="freeze")
    failing_in_second_epoch(monkeypatch, one, times=2)
    run(one)
    assert one.compiled == "blocks"
    assert one.plan is not None
    assert one.plan.checkpointing or one.plan.is_split
    assert len(one.curve) == 2


@pytest.mark.usefixtures("traced")
def test_a_plan_in_parts_leaves_graphs_and_keeps_compiled_blocks(
    dataset: Dataset, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    one = trainer(dataset, runtime, epochs=1)
    run(one)
    blocks_of(one).mode = "graphs"
    one._fitting.follow(MemoryPlan(batch_size=4, micro_batch=2, evaluation_batch=32, checkpointing=False))
    assert warnings_of(caplog) == ["CUDA graphs are not used any more: the batch is computed in parts"]
    assert blocks_of(one).in_force == "blocks"


def test_a_run_that_is_to_end_leaves_its_compiler_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("r3d_18").train()
    blocks = CompiledBlocks(model, "blocks", device=CPU)
    within, updates = threading.Event(), 0

    def endless(*_: object) -> Any:
        within.set()
        threading.Event().wait(60)
        raise AssertionError("nothing has ended the compiler")

    def update() -> int:
        nonlocal updates
        updates += 1
        model(clips()).sum().backward()
        return 2

    def hurry() -> None:
        within.wait(60)
        blocks.hurry()

    monkeypatch.setattr(CompiledBlocks, "_by_inductor", endless)
    other = threading.Thread(target=hurry)
    other.start()
    blocks.begin(update)
    other.join()
    assert warnings_of(caplog) == [f"{WARNING}the run is to end; what was compiled is kept for the next one"]
    assert (blocks.in_force, updates) == (None, 1)
    signal.raise_signal(signal.SIGUSR1)  # one that comes late changes nothing
    blocks.hurry()


@pytest.mark.usefixtures("traced")
def test_a_run_that_is_to_end_compiles_nothing_any_more(dataset: Dataset, runtime: Runtime) -> None:
    one = trainer(dataset, runtime)
    one.hurry()
    run(one)
    assert (one.compiled, blocks_of(one).graphs) == (None, 0)
    assert_same(one, run(trainer(dataset, runtime, compile=False)))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others could come to; those above `tmp_path` are closed to them."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made).resolve()


def test_the_folder_of_what_is_compiled_is_the_users_alone(tmp_path: Path) -> None:
    folder = cache_folder(tmp_path / "compiled")
    assert folder.parent.parent == tmp_path / "compiled"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder == cache_folder(tmp_path / "compiled")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    with pytest.raises(PermissionError, match="nobody else may write"):
        cache_folder(tmp_path / "compiled")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OSError, match="compiled"):
        cache_folder(tmp_path / "compiled")


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_where_others_could_replace_it_the_folder_is_in_the_users_own_cache(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group(("team", "x", number, [])))
    shared = open_folder / "shared"
    shared.mkdir()
    shared.chmod(mode)
    for root in (shared / "compiled", shared / "closed" / "compiled"):
        root.parent.mkdir(exist_ok=True)
        folder = cache_folder(root)
        assert folder.parent.parent == tmp_path / "own" / "video-hpo" / "compiled"
        assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "closed"))
    with pytest.raises(PermissionError, match=f"put another folder in place .* write into {shared}$"):
        cache_folder(shared / "compiled")


def test_a_folder_that_others_cannot_come_to_or_rename_in_is_good_enough(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group(("team", "x", number, [])))
    closed, sticky = open_folder / "closed", open_folder / "sticky"
    (closed / "data").mkdir(parents=True)
    (closed / "data").chmod(0o770)
    closed.chmod(0o700)
    (sticky / "compiled").mkdir(parents=True, mode=0o755)
    sticky.chmod(0o1777)
    for root in (closed / "data" / "compiled", sticky / "compiled"):
        assert cache_folder(root).parent.parent == root


@pytest.mark.parametrize(("members", "is_own"), [([], True), (["me"], True), (["me", "you"], False)])
def test_the_group_of_one_user_is_that_user(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], is_own: bool
) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    names = [me if name == "me" else name for name in members]
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group((me, "x", number, names)))
    open_folder.chmod(0o775)
    assert cache_folder(open_folder / "compiled").is_relative_to(open_folder) is is_own


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("asked", [None, "/of/a/person"])
def test_what_is_compiled_is_kept_where_the_run_says_or_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # As PyTorch's import leaves it.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", asked or default_cache_dir())
    CompiledBlocks(torch.nn.Linear(2, 2), "blocks", device=CPU, cache=tmp_path / "compiled").begin(lambda: 1)
    expected = asked or str(cache_folder(tmp_path / "compiled"))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == expected


def test_a_cpu_of_another_kind_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for flags in ("flags : sse avx2\n", "flags : sse avx512f\n"):
        facts = tmp_path / "cpuinfo"
        facts.write_text(f"model : x\n{flags}")
        monkeypatch.setattr(compiled_module, "_CPU_FACTS", facts)
        found.add(cache_folder(tmp_path / "compiled"))
    assert len(found) == 2
