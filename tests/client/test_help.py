"""Every command there is: it has an example, and an answer for programs; and shells complete it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from client.cli import _commands

REPOSITORY = Path(__file__).parents[2]


def walk(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that does something."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield path
        return
    for name, subcommand in subcommands.items():
        yield from walk(subcommand, *path, name)


def test_every_command_shows_an_example_of_itself_and_writes_json() -> None:
    commands = list(walk(typer.main.get_command(_commands)))
    assert len(commands) > 20
    runner = CliRunner()
    for words in commands:
        shown = runner.invoke(_commands, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, words
        example = shown.output.rpartition("Example:")[2]
        assert f"condenser {' '.join(words)}" in example, words
        assert "--json" in shown.output, words


def test_a_shell_completes_commands() -> None:
    program = "import sys; sys.argv[0] = 'condenser'; from client.cli import app; app()"
    asked = {"_CONDENSER_COMPLETE": "complete_bash", "COMP_WORDS": "condenser wo", "COMP_CWORD": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **asked},
        check=True,
    )
    assert ended.stdout.split() == ["workers"]
