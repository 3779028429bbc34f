"""From prepared frames to batches of clips: sampling, crops, augmentation, loading."""
