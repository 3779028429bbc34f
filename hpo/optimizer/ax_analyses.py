"""Ax's own analyses of a study: its experiment as it stands, and our models of it.

They are computed from the trial records alone, by the same models that propose configurations: stopped trials count
with their predicted final values, and each metric is shown in its own unit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from .ax_generator import AxGenerator, AxStudy, known_warnings
from .history import History
from .surrogate.search import deterministic

with known_warnings():
    from ax.analysis.analysis import Analysis
    from ax.analysis.best_trials import BestTrials
    from ax.analysis.healthcheck.baseline_improvement import BaselineImprovementAnalysis
    from ax.analysis.healthcheck.constraints_feasibility import ConstraintsFeasibilityAnalysis
    from ax.analysis.healthcheck.predictable_metrics import PredictableMetricsAnalysis
    from ax.analysis.plotly.arm_effects import ArmEffectsPlot
    from ax.analysis.plotly.cross_validation import CrossValidationPlot
    from ax.analysis.plotly.p_feasible import PFeasiblePlot
    from ax.analysis.plotly.parallel_coordinates import ParallelCoordinatesPlot
    from ax.analysis.plotly.scatter import ScatterPlot
    from ax.analysis.plotly.sensitivity import SensitivityAnalysisPlot
    from ax.analysis.plotly.top_surfaces import TopSurfacesAnalysis
    from ax.analysis.plotly.utility_progression import UtilityProgressionAnalysis
    from ax.analysis.summary import Summary
    from ax.core.analysis_card import ErrorAnalysisCard

if TYPE_CHECKING:
    from ax.adapter.torch import TorchAdapter
    from ax.core.analysis_card import AnalysisCardBase

SURFACES = 3
"""How many slices and contours are drawn of each metric: those of the parameters that matter most."""


def analyses(history: History) -> dict[str, AnalysisCardBase]:
    """Return the cards of Ax's analyses that apply to a study, by the name of the analysis and of the metric.

    A card has a table, `df`, and most have a plot; the slices and contours of a metric are a group of cards. Analyses
    that do not apply yet, or that Ax cannot compute, are left out.

    Raises:
        GeneratorError: there is no outcome to fit a model to.
    """
    with known_warnings(), deterministic(history.spec.optimizer.seed):
        study, adapter = fitted(history)
        found = {}
        for name, analysis in _applicable(history).items():
            card = analysis.compute_or_error_card(
                experiment=study.experiment, generation_strategy=study.strategy, adapter=adapter
            )
            if not isinstance(card, ErrorAnalysisCard):
                found[name] = card
    return found


def fitted(history: History) -> tuple[AxStudy, TorchAdapter]:
    """Return the study as Ax sees it, and Ax's adapter with our models fitted to it.

    Raises:
        GeneratorError: there is no outcome to fit a model to.
    """
    study = AxGenerator().study(history)
    return study, study.fit(history)


def _applicable(history: History) -> dict[str, Analysis]:
    spec, metrics = history.spec, history.metric_names
    found: dict[str, Analysis] = {
        "summary": Summary(),
        "best trials": BestTrials(),
        "progress": UtilityProgressionAnalysis(),
        "parallel coordinates": ParallelCoordinatesPlot(),
        "cross-validation": CrossValidationPlot(untransform=True),
        "metrics are predictable": PredictableMetricsAnalysis(),
        "the start-up is surpassed": BaselineImprovementAnalysis(),
    }
    for metric in metrics:
        found[f"effects {metric}"] = ArmEffectsPlot(metric_name=metric, use_model_predictions=True)
        found[f"sensitivity {metric}"] = SensitivityAnalysisPlot(metric_name=metric)
        found[f"surfaces {metric}"] = TopSurfacesAnalysis(metric_name=metric, top_k=SURFACES, order="total")
    for left, right in pairwise(metrics):
        found[f"{right} over {left}"] = ScatterPlot(x_metric_name=left, y_metric_name=right)
    if spec.constraints:
        found["constraints can be kept"] = ConstraintsFeasibilityAnalysis()
        found["feasibility"] = PFeasiblePlot()
    return found
