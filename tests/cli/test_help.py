"""What `--help` tells a newcomer: a line that is not cut off, an example, and every option's meaning."""

import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data.readers import READERS

ROOT = typer.main.get_command(app)
GROUPS = {"hilum": ROOT, **{f"hilum {name}": ROOT.commands[name] for name in ("data", "bundle")}}
COMMANDS = {
    f"{group} {name}": command
    for group, holder in GROUPS.items()
    for name, command in holder.commands.items()
    if not hasattr(command, "commands")
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_of_itself_and_tells_of_every_option(name):
    command = COMMANDS[name]

    assert "Example" in command.epilog
    assert name in command.epilog
    told = {parameter.name: parameter.help for parameter in command.params if parameter.name != "help"}
    assert all(text and text.endswith((".", ":")) for text in told.values()), told


@pytest.mark.parametrize("name", GROUPS)
def test_no_line_of_a_list_of_commands_is_cut_off(name):
    shown = CliRunner().invoke(app, [*name.split()[1:], "--help"]).output

    assert "..." not in shown.partition("Commands:")[2]
    assert shown.partition("Commands:")[2].count(".\n") >= len(GROUPS[name].commands)


def test_every_layout_is_named():
    shown = " ".join(CliRunner().invoke(app, ["data", "index", "--help"]).output.split())

    assert all(name in shown.partition("--as LAYOUT")[2].partition("--images")[0] for name in READERS)


def test_a_shell_completes_commands_and_options():
    completed = {}
    for words in ("hilum tr", "hilum train --da"):
        environment = {
            **os.environ,
            "_HILUM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        command = [sys.executable, "-c", "from hilum.cli import app; app(prog_name='hilum')"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        completed[words] = done.stdout.split()
    assert completed == {"hilum tr": ["train"], "hilum train --da": ["--data"]}
