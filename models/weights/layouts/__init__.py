"""The layouts that are read, one module per family with a tuple ``LAYOUTS``; every module here is found."""
