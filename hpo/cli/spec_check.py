"""Check a spec against the model catalogue, before the study is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataNotSeenError, NotFoundError, SpecError, SpecIssue
from .model_rules import demands, pinned, rulebook_of

if TYPE_CHECKING:
    from ..spec import Fragment, StudySpec

_WEIGHTS = ("weights", "weights.rgb", "weights.flow")


def search_fragment(name: str) -> Fragment:
    """Return the space and base that `space: {include: NAME}` includes.

    Raises:
        NotFoundError: there is no such model; the message suggests similar names.
    """
    from models import ModelError, model_info, search_space

    from ..spec import Fragment

    try:
        return Fragment(space=search_space(name), base=dict(model_info(name).search_base))
    except ModelError as error:
        raise NotFoundError(str(error)) from error


def check_models(spec: StudySpec) -> Sequence[SpecIssue]:
    """Return what no worker could build: unknown models and options, and values that never fit together.

    A spec passes if at least one combination fits; `with_models` keeps the others from being proposed.
    """
    from models import ModelError, model_info

    from ..spec import ImageTask, VideoTask

    if not isinstance(spec.task, VideoTask):
        return []
    has_flow, of_images = spec.task.dataset.flow != "none", isinstance(spec.task, ImageTask)
    issues = []
    path, names = _candidates(spec)
    for name in names:
        try:
            info = model_info(name)
        except ModelError as error:
            issues.append(SpecIssue(path=path, message=str(error)))
            continue
        inputs = info.inputs
        if of_images and not info.of_images:
            issues.append(SpecIssue(path=path, message=_no_image_model(name)))
            continue
        if len(inputs) > 1 and not has_flow:
            issues.append(_flow_missing(path, f"{name} takes {' and '.join(inputs)}"))
        issues.extend(list(_unknown_options(spec, name)) or _misfits(spec, name) or _odd_channels(spec, name))
    issues.extend(_weights_issues(spec, names))
    issues.extend(_pooling_issues(spec, names))
    if not has_flow:
        issues.extend(_flow_missing(path, "flow clips need optical flow") for path in _flow_clips(spec))
    return issues


def with_models(spec: StudySpec) -> StudySpec:
    """Return the spec with the rules of its models, after checking it against the catalogue.

    Raises:
        SpecError: see `check_models`; or nothing keeps all rules, or an enqueued guess breaks one of a model.
    """
    from ..spec import VideoTask
    from ..spec.contradictions import rule_issues

    if issues := check_models(spec):
        raise SpecError(issues)
    if not isinstance(spec.task, VideoTask):
        return spec
    texts = [demand.rule for model in _candidates(spec)[1] for demand in demands(spec, model)]
    found = spec.model_copy(update={"model_rules": texts})
    if issues := list(rule_issues(found)):
        raise SpecError(issues)
    return found


def validation_clips(spec: StudySpec) -> int | None:
    """Return how many clips the trials validate on, by the lists of the data set; None for a task without one.

    Raises:
        DataNotSeenError: the data set cannot be read on this machine.
    """
    sides = clips_of_sides(spec)
    return None if sides is None else sides[1]


def clips_of_sides(spec: StudySpec) -> tuple[int, int] | None:
    """Return how many clips the trials train and validate on; None and errors as for `validation_clips`."""
    from data import DatasetError
    from data.index.splits import make_split
    from data.scanning.scan import read_listing
    from data.specs.place import is_remote

    from ..spec import VideoTask

    if not isinstance(spec.task, VideoTask):
        return None
    dataset = spec.task.dataset
    if is_remote(str(dataset.root)):
        raise DataNotSeenError(f"{dataset.root} is at another place, and not copied for this")
    root = Path(dataset.root).expanduser()
    if not root.is_dir():
        raise DataNotSeenError(f"there is no folder {root}")
    try:
        _, listing = read_listing(root, dataset.name, dataset.group_pattern)
        split = make_split(sorted(listing.clips, key=lambda clip: clip.id), dataset)
    except DatasetError as error:
        raise DataNotSeenError(str(error)) from error
    return len(split.fit), len(split.validation)


def _weights_issues(spec: StudySpec, models: Sequence[str]) -> Iterator[SpecIssue]:
    """Yield what no worker could load: texts that are no source, and weights of streams that a model does not have."""
    from models import WeightsError, check_source, list_models, model_info

    for key in _WEIGHTS:
        path, values = _sources(spec, key)
        for value in values:
            try:
                check_source(value)
            except WeightsError as error:
                yield SpecIssue(path=path, message=str(error))
    for name in [name for name in models if name in list_models()]:
        given = [key for key in _WEIGHTS if _sources(spec, key)[1] and _applies(spec, key, name)]
        if len(given) > 1 and given[0] == "weights":
            message = f"{name} gets weights of the whole model and of its streams (weights.rgb, weights.flow): give one"
            yield SpecIssue(path=_sources(spec, "weights")[0], message=message)
        for key in given:
            if key != "weights" and len(model_info(name).inputs) == 1:
                path = _sources(spec, key)[0]
                message = f"{name} has one stream: name its weights as `weights`"
                yield SpecIssue(path=path, message=message + _only_for(spec, path))


def _pooling_issues(spec: StudySpec, models: Sequence[str]) -> Iterator[SpecIssue]:
    """Yield what no worker could score: positions of models that pool their whole maps."""
    from models import list_models, model_info

    wanted = "fully_convolutional"
    parameter = spec.space.get("test_pooling")
    path = "task.base.test_pooling" if parameter is None else "space.test_pooling.choices"
    given = spec.task.base.get("test_pooling") == wanted if parameter is None else parameter.contains(wanted)
    for name in [name for name in models if given and name in list_models()]:
        if not model_info(name).fully_convolutional and _applies(spec, "test_pooling", name):
            known = ", ".join(other for other in list_models() if model_info(other).fully_convolutional)
            message = f"{name} pools its whole maps and is not published with {wanted!r}; {known} are"
            yield SpecIssue(path=path, message=message + _only_for(spec, path))


def _applies(spec: StudySpec, key: str, model: str) -> bool:
    """Return whether trials of a model can get a setting: not if the space gives it to other models alone."""
    return key not in spec.space or model in spec.space[key].when.get("model", [model])


def _sources(spec: StudySpec, key: str) -> tuple[str, list[str]]:
    """Return where a setting of weights is given, and the sources among its values."""
    from models.weights.sources import NO_WEIGHTS

    if key in spec.space:
        path, values = f"space.{key}.choices", list(spec.space[key].extremes)
    else:
        path, values = f"task.base.{key}", [spec.task.base.get(key, NO_WEIGHTS)]
    return path, [str(value) for value in values if value != NO_WEIGHTS]


def _no_image_model(name: str) -> str:
    from models import list_models, model_info

    known = ", ".join(other for other in list_models() if model_info(other).of_images)
    return f"{name} is a model of videos; for images there are {known}"


def _flow_missing(path: str, need: str) -> SpecIssue:
    message = f"{need}, but task.dataset.flow is none: set it to dis, farneback, tvl1, raft or listed"
    return SpecIssue(path=path, message=message)


def _flow_clips(spec: StudySpec) -> Iterator[str]:
    """Yield the paths at which the spec asks for flow as the only input."""
    if spec.task.base.get("clip.modality") == "flow":
        yield "task.base.clip.modality"
    if "clip.modality" in spec.space and spec.space["clip.modality"].contains("flow"):
        yield "space.clip.modality"


def _odd_channels(spec: StudySpec, model: str) -> list[SpecIssue]:
    path, values = _options(spec, model).get("flow_channels", ("", ()))
    odd = [value for value in values if isinstance(value, int) and value % 2]
    message = f"flow_channels = {odd[0]} is odd: it must be even, an x and a y for each pair of frames" if odd else ""
    return [SpecIssue(path=path, message=message)] if odd else []


def _candidates(spec: StudySpec) -> tuple[str, list[str]]:
    from ..spec import CategoricalParameter, OrdinalParameter

    searched = spec.space.get("model")
    if isinstance(searched, CategoricalParameter | OrdinalParameter):
        return "space.model.choices", [str(choice) for choice in searched.choices]
    return "task.base.model", [str(spec.task.base.get("model", spec.task.defaults()["model"]))]


def _options(spec: StudySpec, model: str) -> dict[str, tuple[str, Sequence[Any]]]:
    """Return every option that trials of `model` get: by name, its path in the spec and the values to check."""
    found: dict[str, tuple[str, Sequence[Any]]] = {}
    for key, value in spec.task.base.items():
        if key.startswith("model."):
            found[key.removeprefix("model.")] = (f"task.base.{key}", [value])
    for key, parameter in spec.space.items():
        if key.startswith("model.") and model in parameter.when.get("model", [model]):
            found[key.removeprefix("model.")] = (f"space.{key}", parameter.extremes)
    return found


def _unknown_options(spec: StudySpec, model: str) -> Iterator[SpecIssue]:
    from models import model_info

    known = {hparam.name: hparam for hparam in model_info(model).hparams}
    for option, (path, values) in _options(spec, model).items():
        if option not in known:
            message = f"{model} has no option {option!r}; it has: " + (", ".join(known) or "none")
            yield SpecIssue(path=path, message=message + _only_for(spec, path))
            continue
        wrong = [value for value in values if known[option].accepts.normalize(value) is None]
        if wrong:
            message = f"{wrong[0]!r} is not a valid {option} of {model}: it must be {known[option].accepts}"
            yield SpecIssue(path=path, message=message)


def _only_for(spec: StudySpec, path: str) -> str:
    searched = "model" in spec.space and path.startswith("space.")
    return "; limit it to the models that have it with `when: {model: [...]}`" if searched else ""


def _misfits(spec: StudySpec, model: str) -> list[SpecIssue]:
    """Return one issue if no configuration of the study is one that the model can be built with."""
    from ..spec.rules import impossible, is_possible

    book = rulebook_of(spec, model)
    if is_possible(book, pinned(spec, model)):
        return []
    place, _ = impossible(book, pinned(spec, model))
    demand = list(demands(spec, model))[place]
    shown = book.shown(book.rules[place], {})
    message = f"{model}: {demand.words}, and nothing in this study does" + (f" ({shown})" if shown else "")
    where = "space" if {"clip.frames", "clip.size", "clip.test_size"} & set(spec.space) else "task.base"
    options = (path for path, _ in _options(spec, model).values())
    return [SpecIssue(path=f"{where}.clip" if demand.is_of_clip else next(options, "task.base.model"), message=message)]


def few_clips_of(spec: StudySpec, clips: int | None) -> str | None:
    """Return what so many validation clips cannot show, None where they are enough."""
    from ..answer.estimates import is_share
    from ..answer.power import few_clips

    metric = spec.objectives[0].metric
    if clips is None or not is_share(spec, metric):
        return None
    return few_clips(metric, clips, called=spec.task.validated_on)
