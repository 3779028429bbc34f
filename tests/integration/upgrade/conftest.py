"""The server of the API's tests."""

from __future__ import annotations

from ..api.conftest import service, shared_server

__all__ = ["service", "shared_server"]
