"""What a person meant by a name that there is not: by its meaning, such as `learning_rate`, or by its letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Final

_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "lr": "learning_rate learningrate eta step_size base_lr initial_lr init_lr max_lr alpha",
        "batch_size": "bs batch batchsize batch_sz train_batch_size per_device_train_batch_size minibatch",
        "weight_decay": "wd decay l2 l2_reg l2_regularization regularization",
        "momentum": "beta beta1 mom sgd_momentum",
        "dropout": "drop dropout_rate dropout_p drop_rate p_drop droprate",
        "label_smoothing": "smoothing ls label_smooth",
        "optimizer": "optim opt solver algorithm",
        "schedule": "scheduler lr_scheduler lr_schedule lr_policy",
        "warmup_fraction": "warmup warmup_epochs warmup_steps warmup_ratio warm_up",
        "grad_clip_norm": "grad_clip gradient_clip clip_grad clip_grad_norm max_grad_norm gradient_clipping",
        "epochs": "num_epochs n_epochs max_epochs epoch total_epochs iterations",
        "model": "backbone arch architecture network net model_name encoder",
        "weights": "pretrained pretraining checkpoint init_weights pretrained_weights initialization",
        "seed": "random_seed random_state manual_seed",
        "precision": "amp fp16 bf16 mixed_precision half dtype",
        "ema": "model_ema ema_decay averaging swa exponential_moving_average",
        "freeze": "frozen freeze_backbone frozen_layers frozen_stages freeze_layers",
        "batch_norm": "bn norm batchnorm sync_bn",
        "clip.frames": "n_frames num_frames frames clip_length clip_len sequence_length num_segments t sample_duration",
        "clip.stride": "stride frame_stride sampling_rate frame_interval temporal_stride frame_rate tau dilation",
        "clip.size": "size crop_size image_size img_size resolution input_size spatial_size crop",
        "clip.sampling": "sampler sampling frame_sampling",
        "clip.modality": "modality stream input_type",
        "augment.flip": "flip hflip horizontal_flip",
        "augment.mixup_alpha": "mixup mix_up mixup_a",
        "augment.cutmix_alpha": "cutmix cut_mix",
        "augment.erase": "random_erasing erasing reprob cutout",
        "augment.jitter": "color_jitter colour_jitter jitter brightness contrast",
        "augment.randaugment_m": "magnitude randaugment_magnitude ra_m",
        "augment.randaugment_n": "randaugment rand_augment randaug autoaugment ra_n",
        "augment.repeats": "repeated_augmentation num_sample",
        "layer_decay": "llrd layerwise_decay layer_wise_lr_decay",
        "val_top1": "accuracy acc top1 val_acc val_accuracy validation_accuracy acc1 top_1 prec1 test_accuracy",
        "val_top5": "top5 acc5 val_acc5 top_5 prec5 top5_accuracy",
        "val_loss": "loss validation_loss test_loss eval_loss cross_entropy",
        "train_top1": "train_acc train_accuracy training_accuracy",
        "latency_ms": "latency inference_time speed runtime",
        "peak_memory_gib": "memory vram gpu_memory memory_gb peak_memory",
        "parameters_millions": "params parameters num_params model_size n_parameters",
        "early_stopping": "pruner pruning stopping scheduler early_stop",
        "objectives": "objective metric metrics goal goals target_metric",
        "space": "search_space parameters params hyperparameters hparams",
        "task": "training problem trainer",
        "dataset": "data dataset_path",
        "base": "fixed defaults config settings constants",
        "budget": "limits limit resources max",
        "trials": "n_trials num_trials max_trials max_evals num_samples n_calls runs leaderboard",
        "gpu_hours": "gpu_time hours gpu_budget device_hours",
        "wall_hours": "timeout time max_time walltime time_limit wall_time",
        "max_failed": "max_failures failures max_errors",
        "low": "min minimum lower from lower_bound",
        "high": "max maximum upper to upper_bound",
        "log": "log_scale logarithmic scale is_log",
        "choices": "values options categories choice",
        "type": "kind distribution parameter_type",
        "when": "condition if depends_on active_if",
        "direction": "goal mode maximize minimize",
        "metric": "name objective measure",
        "root": "path dir folder directory data_dir",
        "reduction": "reduction_factor eta eta_factor",
        "min_epochs": "grace_period min_resource n_warmup_steps warmup_steps min_budget",
        "startup_trials": "n_startup_trials n_initial_points init_trials random_trials",
        "warm_start": "warmstart previous earlier",
        "delete": "remove rm del destroy drop",
        "list": "ls all index",
        "show": "info status describe view get inspect",
        "create": "new add make init submit start launch",
        "stop": "kill end terminate abort finish",
        "pause": "suspend halt hold",
        "resume": "continue unpause restart",
        "retry": "rerun repeat again restart",
        "cancel": "kill stop abort",
        "edit": "update change modify set rename",
        "clone": "copy duplicate fork cp",
        "import": "load ingest upload",
        "export": "save dump download",
        "serve": "server start up run api",
        "logs": "log tail output",
        "workers": "worker nodes agents machines gpus",
        "evaluate": "eval test score",
        "predict": "infer inference classify",
        "best": "winner top result results",
        "report": "summary plot plots figures",
        "doctor": "diagnose check health debug",
        "prepare": "preprocess extract cache",
    }
)


@cache
def _by_word() -> Mapping[str, tuple[str, ...]]:
    """Return the names that each word of others means; made when it is first asked for, not with each command."""
    found: dict[str, tuple[str, ...]] = {}
    for meant, words in _MEANINGS.items():
        for word in words.split():
            found[word] = (*found.get(word, ()), meant)
    return found


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return which of the known names was meant: one with the same meaning, else one with similar letters.

    Of a dotted name the meaning of its last part counts too, and a known name may be one within a part of its own:
    `frames` is meant by `clip.num_frames`, and `clip.frames` by `num_frames`.
    """
    names = list(known)
    if name in names:
        return name
    written = name.strip().lower().replace("-", "_").replace(" ", "_")
    for word in dict.fromkeys((written, written.rpartition(".")[2])):
        for meant in _meanings_of(word):
            for one in names:
                if one == meant or one.rpartition(".")[2] == meant.rpartition(".")[2] != one:
                    return one
    for one in names:
        # `size` for `clip.size`, and `clip.batch_size` for `batch_size`.
        if one.rpartition(".")[2] == written or one == written.rpartition(".")[2]:
            return one
    close = get_close_matches(name, names, n=1, cutoff=cutoff)
    return close[0] if close else None


def _meanings_of(word: str) -> Iterator[str]:
    yield from _by_word().get(word, ())
    yield from _by_word().get(word.replace("_", ""), ())
