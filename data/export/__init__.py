"""Writing a data set in the layouts of other tools."""
