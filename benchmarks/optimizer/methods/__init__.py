"""The optimizers under test: ours and its peers."""

from .catalogue import METHODS, OURS, PRUNERS, STOPPING, make_method, version_of
from .method import Method, Setting

__all__ = ["METHODS", "OURS", "PRUNERS", "STOPPING", "Method", "Setting", "make_method", "version_of"]
