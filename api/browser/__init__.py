"""Routes of the pages that people see in a browser."""
