"""What the models of a study are, inferred from its trials in numpy and scipy alone.

From the bottom up: `space` (coordinates, and the embedding that the kernel sees); `kernels`, `gp` and `fit` (a Gaussian
process and its most probable hyperparameters); `laplace` and `slice_sampling` (samples of the hyperparameters);
`outcome` (transforms of the metrics); `curves` (predicted final values of partial learning curves); `models` and
`schedule` (the models of a study, and when they are refitted); `earlier` (trials of other studies); `prior` (beliefs of
the user about the optimum); `regions` and `runnability` (where configurations fail).

The search for configurations with these models is in `hpo.optimizer.surrogate`.
"""
