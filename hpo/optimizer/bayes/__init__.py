"""Bayesian optimization with Gaussian processes over mixed conditional spaces, in numpy and scipy alone.

From the bottom up: `space` (coordinates, and the embedding that the kernel sees); `kernels`, `gp` and `fit` (the model
and its hyperparameters); `laplace` and `slice_sampling` (samples of the hyperparameters); `outcome` (transforms of the
metrics); `curves` (predicted final values of partial learning curves); `improvement` and `acquisition` (expected
improvement, also of hypervolume, under constraints and with pending trials); `prior` (beliefs of the user about the
optimum); `regions` and `runnability` (where configurations fail); `weighted` (both as weights of the improvement);
`earlier` (trials of other studies); `models` and `schedule` (the models of a study, and when they are
refitted); `ascent`, `search` and `completion` (maximising the acquisition); `generator` (the suggestions).
"""
