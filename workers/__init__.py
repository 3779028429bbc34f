"""`hpo-worker`: lease client, trial process, training and evaluation."""
