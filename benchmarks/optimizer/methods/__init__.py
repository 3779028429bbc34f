"""The optimizers under test: ours and its peers."""

from .catalogue import METHODS, OURS, PRUNERS, STOPPING, commit, make_method, version_of
from .method import Method, Origin, Setting

__all__ = [
    "METHODS",
    "OURS",
    "PRUNERS",
    "STOPPING",
    "Method",
    "Origin",
    "Setting",
    "commit",
    "make_method",
    "version_of",
]
