"""How the command speaks: results to standard output, everything about the way there to standard error.

Piped, the output is plain text without colour or bars, and the same from run to run.
"""

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

results = Console()
messages = Console(stderr=True)


def write_json(value: Any) -> None:
    """Write a value for programs."""
    write_line(json.dumps(value, indent=2, default=str))


def write_line(text: str) -> None:
    """Write a line of a result as it is, never wrapped."""
    typer.echo(text)  # rich would turn the tabs of a table into spaces


def tell(text: str) -> None:
    """Tell the person at the terminal what happens."""
    messages.print(text, markup=False, highlight=False, soft_wrap=True)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows under headings; tab-separated and without headings when piped."""
    if not results.is_terminal:
        for row in rows:
            write_line("\t".join(row))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    results.print(table)
