"""The cards of the models, one module per architecture with a tuple ``CARDS``; every module here is found."""
