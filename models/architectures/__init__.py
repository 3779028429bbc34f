"""The architectures, one a module; their cards stand in a module of the same name in `models.cards`."""
