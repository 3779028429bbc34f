"""One lease at a time: claim a trial, report on it, finish or release it."""
