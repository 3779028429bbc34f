"""How many workers would find work: what the service says of the trials that are yet to end."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client.parser import text_string_to_metric_families

from ..client.http import Client
from ..client.steps import Call

_FIGURE = "hpo_trials_left"


def trials_left(
    client: Client, *, study: str | None, task_kinds: Collection[str], gpus: int = 1, nodes: int = 1
) -> int:
    """Return how many trials of active studies are yet to end, those that run included.

    Args:
        study: of this one alone; None for all.
        task_kinds: of studies with such tasks alone: `video` and `image`, or `custom` for a function of a person's own.
        gpus: that each worker has on a machine: trials that need more are not counted.
        nodes: machines of each worker: trials of so many are counted alone.

    Raises:
        StoreUnavailableError: the service cannot say so at the moment.
        AuthenticationError, PermissionDeniedError: the token may not ask.
    """
    figures: str = client.run(Call("GET", "/metrics", lambda answer: answer.text))
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(figures)
        for sample in family.samples
        if sample.name == _FIGURE
        and sample.labels.get("task_kind") in task_kinds
        and study in (None, sample.labels["study"])
        and int(sample.labels.get("gpus", 1)) <= gpus
        and int(sample.labels.get("nodes", 1)) == nodes
    )
