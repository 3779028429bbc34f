"""`hpo train` and `hpo evaluate`: an exported configuration, trained again or scored on the sealed test list."""
