"""Makes the tables of real trainings that `benchmarks.optimizer.problems.trained` reads."""
