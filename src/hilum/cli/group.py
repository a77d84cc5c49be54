"""The group of all commands: what Typer refuses before a command begins, in Hilum's words and in one line."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hilum.errors import plain


class Group(TyperGroup):
    """Typer checks arguments by pydantic, whose words are for who programs, and tells of them in four lines."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command line."""
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except Exception as error:
            refusal = _refusal(error)
            if not refusal:
                raise
            typer.echo(refusal, err=True)
            sys.exit(getattr(error, "exit_code", 2))
        sys.exit(status or 0)

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


def _refusal(error: Exception) -> str:
    """What Typer refuses, in a line; its help where a group was called without a command; empty for other errors."""
    told = getattr(error, "format_message", None)  # the exceptions' classes are not public
    context = getattr(error, "ctx", None)
    if told is None:
        return ""
    text = str(told())
    if context is None or text.startswith("Usage:"):
        return text
    text = f"{text[:1].lower()}{text[1:]}".rstrip(".")
    return f"error: {text}{'' if text.endswith('?') else ';'} `{context.command_path} --help` tells what it takes"
