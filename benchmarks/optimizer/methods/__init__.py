"""The optimizers under test: ours and its peers."""

from .catalogue import BRIDGED, METHODS, OURS, PRUNERS, SIMPLE_RULES, STOPPING, commit, make_method, version_of
from .method import Method, Origin, Setting

__all__ = [
    "BRIDGED",
    "METHODS",
    "OURS",
    "PRUNERS",
    "SIMPLE_RULES",
    "STOPPING",
    "Method",
    "Origin",
    "Setting",
    "commit",
    "make_method",
    "version_of",
]
