"""Scanning a folder: its layout, its clips, and what decoding each of them shows."""
