"""The canonical index of a data set: its clips, classes, groups and splits."""
