"""The server of the API's tests."""

from __future__ import annotations

from ..api.conftest import service

__all__ = ["service"]
