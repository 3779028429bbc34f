"""Print what the image of the API installs: the dependencies but those that only trainings and the optimizer import.

Traces are the API's too, so it has their extra.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

LEFT_OUT: Final = frozenset({"ax-platform", "botorch", "torch", "torchvision"})
"""`tests/packaging/test_arrows.py` holds that the API starts without them."""

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for line in [*project["dependencies"], *project["optional-dependencies"]["otel"], "hatchling"]:
    if re.split(r"[<>=\[]", line)[0] not in LEFT_OUT:
        print(line)
