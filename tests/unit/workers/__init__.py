"""Tests of the worker, part by part."""
