"""``condenser doctor``: what is wrong here, and what to do about it."""

from dataclasses import asdict

import typer
from rich.text import Text

from client.address import address_of
from client.commands.jobs import AsJson
from client.diagnosis import Finding, diagnose
from client.examples import example
from client.output import results, write_json, write_line

STYLES = {"good": "green", "warning": "yellow", "wrong": "red"}


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser doctor"))(doctor)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Look at Python, torch, GPU, disk, servers and the service, and say what to do where one is wrong.

    The exit code is 1 when something is wrong; warnings alone leave it 0.
    """
    findings = []
    for finding in diagnose(address_of(context)):
        findings.append(finding)
        if not as_json:
            _write(finding)
    if as_json:
        write_json([asdict(finding) for finding in findings])
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def _write(finding: Finding) -> None:
    line = f"{finding.state:<8} {finding.check:<8} {finding.found}"
    advice = None if finding.advice is None else f"{'':<17} → {finding.advice}"
    if not results.is_terminal:
        for text in filter(None, (line, advice)):
            write_line(text)
        return
    results.print(Text(line[:8], STYLES[finding.state]) + Text(line[8:]), soft_wrap=True)
    if advice is not None:
        results.print(Text(advice), soft_wrap=True)
