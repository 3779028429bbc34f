"""Our models in Ax: its adapter, generator, surrogate and acquisition, around the plan of a history.

Ax's adapter translates the experiment, `Coordinates` and `Targets` being its transforms, so that BoTorch sees rows of
the space and standardised targets; the surrogate is the plan's ensemble of Gaussian processes; the acquisition is the
plan's, with the pending trials that Ax knows. Predictions, cross-validation and sensitivities of Ax are therefore those
of the models that candidates come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ax.adapter.torch import TorchAdapter
from ax.adapter.transforms.base import Transform
from ax.core.arm import Arm
from ax.core.data import Data, DataRow
from ax.core.data_utils import ExperimentData
from ax.core.experiment import Experiment
from ax.core.generator_run import GeneratorRun
from ax.core.observation import ObservationData, ObservationFeatures
from ax.core.optimization_config import OptimizationConfig
from ax.core.parameter import ChoiceParameter, Parameter, ParameterType, RangeParameter
from ax.core.search_space import SearchSpace, SearchSpaceDigest
from ax.core.trial_status import STATUSES_EXPECTING_DATA
from ax.exceptions.core import DataRequiredError
from ax.generation_strategy.generation_node import GenerationNode
from ax.generators.torch.botorch_modular.acquisition import Acquisition
from ax.generators.torch.botorch_modular.generator import BoTorchGenerator
from ax.generators.torch.botorch_modular.surrogate import Surrogate
from ax.generators.torch_base import TorchOptConfig
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models.gpytorch import ModelListGPyTorchModel
from botorch.models.model import Model
from botorch.utils.datasets import SupervisedDataset
from torch import Tensor

from .ax_space import AxSpace
from .bayes.models import Metric
from .bayes.space import Axis
from .generator import GeneratorError
from .surrogate.ensemble import EnsembleGP
from .surrogate.plan import Plan
from .surrogate.search import deterministic

PLAN = "plan"
"""Where a transform's configuration has the plan."""


class Coordinates(Transform):
    """Configurations in Ax's terms as rows of the plan's space: numbers in [0, 1], and the indices of categories."""

    def __init__(self, **arguments: Any) -> None:
        plan = _taken(arguments)
        super().__init__(**arguments)
        self._plan = plan
        self._space = AxSpace(plan.spec)
        self._axes = {axis.key: axis for axis in plan.space.axes}

    def transform_search_space(self, search_space: SearchSpace) -> SearchSpace:
        """Return the space of rows."""
        return SearchSpace([_parameter(axis) for axis in self._axes.values()])

    def transform_observation_features(
        self, observation_features: list[ObservationFeatures]
    ) -> list[ObservationFeatures]:
        """Return the features with coordinates instead of values."""
        for features in observation_features:
            values = self._space.values(features.parameters)
            features.parameters = {key: self._coordinate(key, value) for key, value in values.items()}
        return observation_features

    def untransform_observation_features(
        self, observation_features: list[ObservationFeatures]
    ) -> list[ObservationFeatures]:
        """Return the features with values instead of coordinates."""
        for features in observation_features:
            values = {key: self._axes[key].value(float(u)) for key, u in features.parameters.items() if u is not None}
            features.parameters = {**self._space.encode(values)}
        return observation_features

    def transform_experiment_data(self, experiment_data: ExperimentData) -> ExperimentData:
        """Return the data with coordinates instead of values."""
        arms = experiment_data.arm_data
        for key in self._axes:
            arms[key] = [self._coordinate(key, self._space.values({key: value})[key]) for value in arms[key].tolist()]
        return ExperimentData(arm_data=arms, observation_data=experiment_data.observation_data)

    def _coordinate(self, key: str, value: Any) -> float:
        return self._axes[key].coordinate(value)


class Targets(Transform):
    """Metrics in the units of the models, by the transform that the plan chose; more is still more."""

    def __init__(self, **arguments: Any) -> None:
        plan = _taken(arguments)
        super().__init__(**arguments)
        self._metrics = {metric.name: metric for metric in reversed(plan.metrics)}

    def transform_experiment_data(self, experiment_data: ExperimentData) -> ExperimentData:
        """Return the data in the units of the models."""
        table = experiment_data.observation_data
        for name, metric in self._metrics.items():
            values = table["mean", name].to_numpy(dtype=float)
            table["sem", name] = table["sem", name].to_numpy(dtype=float) * metric.transform.slope(metric.sign * values)
            table["mean", name] = metric.sign * metric.transform.forward(metric.sign * values)
        return ExperimentData(arm_data=experiment_data.arm_data, observation_data=table)

    def _transform_observation_data(self, observation_data: list[ObservationData]) -> list[ObservationData]:
        for data in observation_data:
            for place, metric in self._places(data):
                value = metric.sign * data.means[place : place + 1]
                data.covariance[place, place] *= metric.transform.slope(value)[0] ** 2
                data.means[place] = metric.sign * metric.transform.forward(value)[0]
        return observation_data

    def _untransform_observation_data(self, observation_data: list[ObservationData]) -> list[ObservationData]:
        for data in observation_data:
            for place, metric in self._places(data):
                mean, sd = metric.in_unit(metric.sign * data.means[place : place + 1], data.covariance[place, [place]])
                data.means[place] = mean[0]
                # The outcomes are modelled as independent.
                data.covariance[place, place] = sd[0] ** 2
        return observation_data

    def transform_optimization_config(
        self, optimization_config: OptimizationConfig, adapter: Any = None, fixed_features: Any = None
    ) -> OptimizationConfig:
        """Return the configuration as it is: the plan has the thresholds in the units of its models."""
        return optimization_config

    def _places(self, data: ObservationData) -> list[tuple[int, Metric]]:
        names = data.metric_signatures
        return [(place, self._metrics[name]) for place, name in enumerate(names) if name in self._metrics]


def _parameter(axis: Axis) -> Parameter:
    """Return the coordinate of an axis as a parameter of Ax."""
    if not axis.is_categorical:
        return RangeParameter(name=axis.key, parameter_type=ParameterType.FLOAT, lower=0.0, upper=1.0)
    found = ChoiceParameter(
        name=axis.key,
        parameter_type=ParameterType.INT,
        values=list(range(axis.count)),
        is_ordered=False,
        sort_values=True,
    )
    # Ax declares two values ordered. Sensitivities then get the sign of the slope, which for a category is 0.
    found._is_ordered = False
    return found


def _taken(arguments: dict[str, Any]) -> Plan:
    """Remove the plan from a transform's arguments, which Ax copies, and return it."""
    plan: Plan = arguments.pop("config")[PLAN]
    return plan


class EnsembleSurrogate(Surrogate):
    """The plan's models, conditioned on the data that Ax passes on."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def clone_reset(self) -> EnsembleSurrogate:
        """Return a surrogate with the same hyperparameters and no data."""
        return EnsembleSurrogate(self.plan)

    def fit(
        self, datasets: Sequence[SupervisedDataset], search_space_digest: SearchSpaceDigest, *_: Any, **__: Any
    ) -> None:
        """Condition the models on `datasets`; the hyperparameters stay those of the plan."""
        self._last_search_space_digest = search_space_digest
        self._training_data = list(datasets)
        self._outcomes = [name for dataset in datasets for name in dataset.outcome_names]
        models: list[Model] = [self._conditioned(dataset) for dataset in datasets]
        self._model = models[0] if len(models) == 1 else ModelListGPyTorchModel(*models)

    def _conditioned(self, dataset: SupervisedDataset) -> EnsembleGP:
        metric = next(metric for metric in self.plan.metrics if metric.name == dataset.outcome_names[0])
        rows, noise = dataset.X.numpy(), np.zeros(len(dataset.X))
        if dataset.Yvar is not None:
            noise = np.nan_to_num(dataset.Yvar.numpy()[:, 0])
        return self.plan.ensemble(metric, rows, dataset.Y.numpy()[:, 0], noise)


class PlannedAcquisition(Acquisition):
    """The plan's acquisition and search."""

    def _instantiate_acquisition(self) -> None:
        # Ax also counts withdrawn suggestions as pending. The plan knows better, and has what it has proposed.
        if not isinstance(self.surrogate, EnsembleSurrogate):
            raise TypeError(f"{type(self.surrogate).__name__} has no plan; an EnsembleSurrogate is needed")
        self._plan = self.surrogate.plan
        self.acqf = self._plan.acquisition()
        self.models_used = [dict.fromkeys(self.surrogate.outcomes, EnsembleGP.__name__)]

    def _update_objective_thresholds(self, torch_opt_config: TorchOptConfig) -> None:
        """Do nothing: the reference point is the plan's."""

    def optimize(
        self,
        n: int,
        search_space_digest: SearchSpaceDigest,
        *_: Any,
        fixed_features: dict[int, float] | None = None,
        **__: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `n` candidates, the values of the acquisition there, and weights of one.

        Raises:
            GeneratorError: the search found no new configuration.
        """
        rows, values = [], []
        with deterministic(self._plan.seed):
            for _place in range(n):
                found = self._plan.acquisition()
                row = self._plan.best(found, fixed_features or {})
                if row is None:
                    raise GeneratorError("the search found no new configuration")
                rows.append(row)
                with torch.no_grad():
                    values.append(found(torch.as_tensor(row)[None, None]))
        return torch.as_tensor(np.array(rows)), torch.cat(values), torch.ones(n, dtype=torch.double)


class PlannedNode(GenerationNode):
    """The node of the generation strategy whose adapter has the models of a plan."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, generator_specs=[], should_deduplicate=False, fallback_specs={})
        self._plan: Plan | None = None
        self._adapter: TorchAdapter | None = None

    def prepare(self, plan: Plan) -> None:
        """Propose by `plan` from now on."""
        self._plan, self._adapter = plan, None

    @property
    def _fitted_adapter(self) -> TorchAdapter | None:
        return self._adapter

    @property
    def adapter(self) -> TorchAdapter:
        """The adapter, fitted.

        Raises:
            DataRequiredError: the node has not been fitted since it was prepared.
        """
        if self._adapter is None:
            raise DataRequiredError("the node has not been fitted yet")
        return self._adapter

    def _fit(self, experiment: Experiment, data: Data | None = None, **_: Any) -> None:
        if self._plan is None:
            raise DataRequiredError("no plan has been made yet")
        if self._adapter is None:
            self._adapter = fitted_adapter(experiment, self._plan)

    def _gen(
        self,
        experiment: Experiment,
        pending_observations: dict[str, list[ObservationFeatures]] | None,
        data: Data | None,
        n: int | None,
        fixed_features: ObservationFeatures | None = None,
        **_: Any,
    ) -> GeneratorRun:
        return self.adapter.gen(n=n or 1, pending_observations=pending_observations, fixed_features=fixed_features)


def fitted_adapter(experiment: Experiment, plan: Plan) -> TorchAdapter:
    """Return an adapter with the models of a plan, fitted to the outcomes that the plan knows or predicts."""
    configs: dict[str, Any] = {"Coordinates": {PLAN: plan}, "Targets": {PLAN: plan}}
    acquisition = qLogNoisyExpectedImprovement if plan.has_one_objective else qLogNoisyExpectedHypervolumeImprovement
    return TorchAdapter(
        experiment=experiment,
        generator=BoTorchGenerator(
            surrogate=EnsembleSurrogate(plan), acquisition_class=PlannedAcquisition, botorch_acqf_class=acquisition
        ),
        data=ends(experiment, plan),
        transforms=[Coordinates, Targets],
        transform_configs=configs,
        expand_model_space=False,
    )


def ends(experiment: Experiment, plan: Plan) -> Data:
    """Return the final values that the plan knows or predicts, with their standard deviations, as Ax's data."""
    space = AxSpace(plan.spec)
    trials: dict[str, list[int]] = {}
    for trial in experiment.trials.values():
        if trial.status in STATUSES_EXPECTING_DATA:
            trials.setdefault(trial.arms[0].signature, []).append(trial.index)
    rows = []
    for outcome in plan.measured:
        # Two trials may have the same configuration; both are in the order in which they began.
        index = trials[Arm(parameters=dict(space.encode(outcome.params))).signature].pop(0)
        rows += [
            DataRow(
                trial_index=index,
                arm_name=experiment.trials[index].arms[0].name,
                metric_name=name,
                metric_signature=name,
                mean=value,
                se=outcome.sds[name],
            )
            for name, value in outcome.values.items()
        ]
    return Data(data_rows=rows)
