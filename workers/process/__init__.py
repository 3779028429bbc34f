"""The child process that trains one trial, and both ends of its pipes."""
