"""The group of all commands: what Typer refuses before a command begins, in Hilum's words."""

from typing import Any

import typer
from typer.core import TyperGroup

from hilum.errors import plain


class Group(TyperGroup):
    """Typer checks arguments by pydantic, whose words are for who programs."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            errors = getattr(error.__cause__, "errors", None)
            if errors is not None:
                first = errors()[0]
                got = "" if first["type"] == "value_error" else f" (got {first['input']!r})"
                error.message = plain(first["type"], first["msg"]) + got
            raise
