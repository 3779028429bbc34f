"""A generated video data set on which motion alone carries the class."""
