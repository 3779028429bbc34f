"""The answer of a study: which configuration is the best, how sure that is, and what to expect of it on new data.

`answer(spec, records)` is the one rule behind everything that shows a best trial. It is a function of the records and
needs neither a database nor an optimizer.
"""

from .answer import Answer, Candidate, Estimate, answer

__all__ = ["Answer", "Candidate", "Estimate", "answer"]
