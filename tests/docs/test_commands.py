"""Every command and every piece of Python in the manual runs, page by page and in the page's order.

Each line is typed once, on the first page that has it. What cannot run here stands below with its reason; of
that, what can be told without running it is checked: that the module and the target exist.
"""

import ast
import re
import shlex
from importlib.util import find_spec

import pytest

from tests.docs.conftest import Reader
from tests.docs.pages import COMMANDS, ROOT, Command

TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)

ENVIRONMENT = "the tests' own environment is active, and its keys are the test's"
MINUTES = "takes minutes, and is `condenser demo`, which tests/client/test_demo.py runs in parts"
STAYS = "stays in the foreground; tests/embedded starts, interrupts and stops it"
DOCKER = "needs Docker; tests/deploy checks the files, docs/deploying.md says where the stack was tried"
KUBERNETES = "needs a cluster; tests/deploy checks the manifests"
TORCH = "loads what a real training exported, which tests/core/test_export.py and test_few_step.py do"

SERVERS = "wants empty servers, which tests/api/test_api_backup.py gives it"
HOSTS = "wants hosts with eight accelerators each; tests/core/test_ranks.py has two processes"
HUB = "needs the Hub"
HOUR = "takes an hour; tests/faults/test_campaign.py runs a small one"

# Of a long line the beginning is enough.
NOT_RUN = {
    ". .venv/bin/activate": ENVIRONMENT,
    'export AUTH="Authorization: Bearer condenser_…"': ENVIRONMENT,
    "make demo": MINUTES,
    "make test": "is what runs this",
    "make pictures": "is tests/browser with an option, and needs its minutes",
    "condenser up": STAYS,
    "TEACHERS_DIRS=/models condenser up": STAYS,
    "docker compose up ": DOCKER,
    "docker compose exec ": DOCKER,
    "kubectl create ": KUBERNETES,
    "kubectl apply ": KUBERNETES,
    "kubectl -n condenser create ": KUBERNETES,
    "kubectl -n condenser exec ": KUBERNETES,
    "kubectl -n condenser rollout ": KUBERNETES,
    "kubectl -n condenser wait ": KUBERNETES,
    "python -m store.backup restore ": SERVERS,
    "python -m core.elastic --nnodes 2 ": HOSTS,
    "python -m benchmarks.fault_campaign ": HOUR,
    "hf download ": HUB,
    "pipeline(": TORCH,
    "pictures[0].save(": TORCH,
}


def reason_of(command: Command) -> str | None:
    """The beginning of `NOT_RUN` that a command has, unless it is to run."""
    return next((begin for begin in NOT_RUN if command.name.startswith(begin)), None)


READ = [command for command in COMMANDS if reason_of(command) is None]
NOT_READ = [command for command in COMMANDS if reason_of(command) is not None]


def pages() -> dict[str, list[Command]]:
    """What is to be typed of each page: the lines that no page before it has."""
    first = {command.text: command for command in reversed(READ)}
    found: dict[str, list[Command]] = {}
    for command in READ:
        if first.get(command.text) is command:
            found.setdefault(str(command.page.relative_to(ROOT)), []).append(command)
    return found


@pytest.mark.parametrize(("page", "commands"), pages().items())
def test_what_a_page_says_runs(page: str, commands: list[Command], reader: Reader) -> None:
    for command in commands:
        reader.type(command)


def test_what_is_not_run_stands_on_a_page() -> None:
    assert {reason_of(command) for command in NOT_READ} == NOT_RUN.keys()


def test_what_is_not_run_exists() -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    for command in NOT_READ:
        if command.is_python:
            imports = [node for node in ast.walk(ast.parse(command.text)) if isinstance(node, ast.ImportFrom)]
            assert all(find_spec(node.module or "") for node in imports), command.name
            continue
        program, *arguments = shlex.split(command.arguments)
        if program == "make":
            assert set(arguments) <= targets, command.name
        if program == "python":
            assert find_spec(arguments[1]), command.name
