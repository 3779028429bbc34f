"""Importers, one module per layout: each recognises its layout and reads a folder into a `Listing`, without videos."""
