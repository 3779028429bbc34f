"""Data sets at an address, which are copied beside the prepared frames."""
