"""Studies, search spaces, the store, the optimizer, early stopping, export and the `hpo` command."""
