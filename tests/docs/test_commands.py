"""Every command, call and piece of Python in the manual is one that the software has.

They are not run: that the service does what they ask is tested where it is built. What is found here is a
command that was renamed, an option that is gone, a path that never was.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.routing import compile_path
from typer.core import TyperGroup

from api.app import create_app
from client import cli
from store.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ASSIGNMENTS = re.compile(r"^([A-Z_]+=\S+ )+")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page: indented lines, with what a backslash continues."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("    "):
            yield ASSIGNMENTS.sub("", line.strip())


def _commands(program: str) -> list[Any]:
    found = sorted({line for page in PAGES for line in _lines(page) if line.split(" ")[0] == program})
    assert found, f"no page has a command of {program}"
    return found


def _arguments(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("line", _commands("condenser"))
def test_the_command_and_its_options_exist(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argument in _arguments(line):
        if Path(argument).suffix in {".txt", ".parquet", ".zst", ".json"} and "://" not in argument:
            Path(argument).touch()  # the options want files that are there
    command, arguments = typer.main.get_command(cli._commands), _arguments(line)
    at_once = {name for parameter in command.params if not parameter.expose_value for name in parameter.opts}
    if set(arguments) <= at_once:  # such an option is carried out as it is read
        return
    context = command.make_context("condenser", list(arguments))
    while isinstance(command, TyperGroup):
        name, subcommand, arguments = command.resolve_command(context, arguments)
        assert subcommand is not None
        command, context = subcommand, subcommand.make_context(name, list(arguments), parent=context)


@pytest.mark.parametrize("line", _commands("python"))
def test_the_module_exists(line: str) -> None:
    option, module, *_ = _arguments(line)
    assert option == "-m"
    assert find_spec(module) is not None


@pytest.mark.parametrize("line", _commands("make"))
def test_the_target_exists(line: str) -> None:
    targets = TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(_arguments(line)) <= set(targets)


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, re.Pattern[str]]]:
    """The methods and paths of the API."""
    nowhere = Settings(database_url="postgresql://db.invalid/db", redis_url="redis://broker.invalid")
    document = create_app(nowhere).openapi()
    return [
        (method.upper(), compile_path(path)[0]) for path, item in document["paths"].items() for method in item
    ]


@pytest.mark.parametrize("line", _commands("curl"))
def test_the_call_exists_and_carries_a_key(line: str, calls: list[tuple[str, re.Pattern[str]]]) -> None:
    arguments = _arguments(line)
    (address,) = [argument for argument in arguments if re.match(r"(http://)?[\w.]+:\d+/", argument)]
    path = "/" + address.removeprefix("http://").partition("/")[2].partition("?")[0]
    method = "POST" if "--data-binary" in arguments or "-d" in arguments else "GET"
    assert any(method == known and pattern.fullmatch(path) for known, pattern in calls)
    assert "$AUTH" in arguments


@pytest.mark.parametrize(
    "source", [source for page in PAGES for source in PYTHON.findall(page.read_text(encoding="utf-8"))]
)
def test_the_python_compiles_and_its_imports_exist(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
