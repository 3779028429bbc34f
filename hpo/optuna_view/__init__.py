"""Our studies as Optuna sees them: a read-only storage and frozen trials."""
