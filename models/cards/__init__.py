"""One file of cards per architecture, each with a tuple ``CARDS``; a file put here is found."""
