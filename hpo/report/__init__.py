"""The report of a study: one HTML file that a person reads, made from what the API gives."""
