"""Loading parameters from the files of this and other programs."""
