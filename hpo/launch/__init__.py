"""Starting workers, on this machine or by an engine that places them on others."""
