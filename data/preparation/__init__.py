"""Preparing the frames and flow of a data set once, for all trials."""
