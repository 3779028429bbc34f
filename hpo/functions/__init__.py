"""Functions of a person's own as trials: what such a function is given, and `hpo.tune`."""
