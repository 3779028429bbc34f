"""Groups of commands that say what a person meant by a command that there is not."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """A group whose commands are found by their meaning, too: of `study remove` it says that there is `delete`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the first argument names.

        Raises:
            UsageError: there is none; says the nearest.
        """
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            from ..meanings import nearest

            near = nearest(name, self.list_commands(ctx))
            hint = f" Did you mean {near!r}?" if near is not None else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)
