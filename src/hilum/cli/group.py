"""The group of all commands: what Typer refuses before a command begins, in Hilum's words and in one line."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hilum.errors import plain

EXIT_INTERRUPTED = 130


class Group(TyperGroup):
    """The group of all commands, which refuses in one line.

    Typer checks arguments by pydantic, whose words are for programmers, and takes four lines.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line."""
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
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # which Typer would turn into a status without a word
            typer.echo("; ".join(["stopped by Ctrl-C", *map(str, error.args)]), err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except typer.BadParameter as error:
            errors = getattr(error.__cause__, "errors", None)
            if errors is not None:
                first = errors()[0]
                got = "" if first["type"] == "value_error" else f" (got {first['input']!r})"
                error.message = plain(first["type"], first["msg"]) + got
            raise


def _refusal(error: Exception) -> str:
    """Return what Typer refuses, in a line, or its help where a command is missing; empty for other errors."""
    message = getattr(error, "format_message", None)  # the exceptions' classes are not public
    context = getattr(error, "ctx", None)
    if message is None:
        return ""
    text = str(message())
    if context is None or text.startswith("Usage:"):
        return text
    text = f"{text[:1].lower()}{text[1:]}".rstrip(".")
    return f"error: {text}{'' if text.endswith('?') else ';'} `{context.command_path} --help` tells what it takes"
