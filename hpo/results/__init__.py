"""What came of trials: outcomes, their ranking, exports, and what a new study learns from an earlier one."""
