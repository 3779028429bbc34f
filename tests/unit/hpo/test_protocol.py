"""What a worker may send."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from hpo.protocol import FinishRequest


def _finish(environment: dict[str, Any]) -> FinishRequest:
    return FinishRequest(attempt=1, lease_id=UUID(int=1), outcome="completed", environment=environment)


def _nested(lists: int) -> Any:
    value: Any = "x"
    for _ in range(lists):
        value = [value]
    return value


def test_a_body_may_be_nested_a_hundred_levels_deep() -> None:
    assert _finish({"a": _nested(98)}).environment == {"a": _nested(98)}
    with pytest.raises(ValidationError, match="nested too deeply"):
        _finish({"a": _nested(99)})


def test_text_that_postgres_cannot_store_is_replaced() -> None:
    assert _finish({"a\0": ["b\0", "\ud800"]}).environment == {"a?": ["b?", "?"]}
