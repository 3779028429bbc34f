"""Training one configuration: a library that knows no lease, no process and no API."""
