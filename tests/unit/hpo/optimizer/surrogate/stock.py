"""The stock parts of BoTorch and GPyTorch that ours are checked against."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # linear_operator uses torch.jit.script.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from botorch.acquisition.acquisition import AcquisitionFunction
    from botorch.acquisition.analytic import _log_ei_helper as log_ei_helper
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.exceptions.errors import InputDataError
    from botorch.models.deterministic import GenericDeterministicModel
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.gpytorch import ModelListGPyTorchModel
    from botorch.posteriors.gpytorch import GPyTorchPosterior
    from botorch.sampling.normal import SobolQMCNormalSampler
    from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel

__all__ = [
    "AcquisitionFunction",
    "GPyTorchPosterior",
    "GenericDeterministicModel",
    "InputDataError",
    "MaternKernel",
    "ModelListGPyTorchModel",
    "RBFKernel",
    "ScaleKernel",
    "SingleTaskGP",
    "SobolQMCNormalSampler",
    "log_ei_helper",
    "qLogNoisyExpectedHypervolumeImprovement",
]
