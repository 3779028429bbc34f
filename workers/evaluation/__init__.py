"""Scoring final weights."""
