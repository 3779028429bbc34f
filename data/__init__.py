"""Video data sets: index, preparation, splits, decoding, cache and loaders."""
