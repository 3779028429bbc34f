"""Early stopping: which trials go on, stop or pause after a report."""
