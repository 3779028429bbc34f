"""optuna-dashboard, served read-only over our tables."""
