"""Results of searches elsewhere, read from files of other programs and fitted to the space of a study."""

from .fitting import Fitted, Wishes, fit
from .found import FoundTrial, Results
from .reading import FORMATS, read

__all__ = ["FORMATS", "Fitted", "FoundTrial", "Results", "Wishes", "fit", "read"]
