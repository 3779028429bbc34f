"""Early stopping: which trials continue, stop or pause after a report."""
