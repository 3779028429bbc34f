"""Bayesian optimization of our own: Gaussian processes over mixed conditional spaces, in numpy and scipy alone.

From the bottom up: `space` (coordinates and the embedding that the kernel sees), `gp` and `fit` (the model and its
hyperparameters), `outcome` (transforms of what is modelled), `curves` (what a partial learning curve says of the
end), `improvement` and `acquisition` (expected improvement, of hypervolume too, under constraints and with pending
trials), `prior` (a person's belief) and `earlier` (trials of other studies), `ascent` and `search` (where it is best),
`generator` (the suggestions).
"""
