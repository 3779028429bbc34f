"""A test of the tests: small defects put into the code, each of which some test should notice.

`make mutants` draws a seeded sample of defects in every package, runs the tests of that package against each, and
prints the share that was noticed. See docs/testing.md.
"""
