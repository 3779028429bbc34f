"""Checkpoints: the folder of a trial and what its files hold."""
