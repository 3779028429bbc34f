"""What starting costs: neither torch nor ax, not even with the dashboard open."""

from __future__ import annotations

import os
import subprocess
import sys

from .service import KEY

_PROGRAM = f"""
import sys
def loaded():
    return sorted({{"torch", "ax", "botorch", "gpytorch"}} & set(sys.modules))
import api, api.app, api.auth, hpo.client.http
assert loaded() == [], ("import api", loaded())
assert "optuna_dashboard" not in sys.modules
from hpo.store import Database
from api.config import ApiConfig
import os
database = Database(os.environ["URL"])
from tests.integration.api.service import serving
with serving(database) as service, service.http("read") as http:
    assert http.get("/v1/health").status_code == 200
    assert loaded() == [], ("a request", loaded())
    assert not {{"optuna", "optuna_dashboard", "pandas"}} & set(sys.modules)
    assert http.get("/api/studies").json() == {{"study_summaries": []}}
    assert "optuna_dashboard" in sys.modules
    assert loaded() == [], ("the dashboard", loaded())
assert {KEY!r}
print("done")
"""


def test_neither_torch_nor_ax_is_imported(database_url: str) -> None:
    environment = {**os.environ, "URL": database_url, "PYTHONPATH": os.getcwd()}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout == "done\n"
