"""Scanning a data set: recognising its layout, listing its clips and decoding each of them once."""
