"""Print what an image installs: ``python docker/image_requirements.py api``.

The names and ranges are those of ``pyproject.toml``, of the extras that are named and of those that these
refer to; the exact releases follow from ``requirements.lock``, which pip takes as its constraints. This runs
in a layer of its own, before any code is copied, so that a change of code installs nothing anew.
"""

import re
import sys
import tomllib
from pathlib import Path

_OWN = re.compile(r"condenser\[(?P<extras>[a-z,]+)\]")


def requirements_of(project: Path, extras: list[str]) -> list[str]:
    """Collect the requirements of a project with some of its extras.

    Parameters
    ----------
    project
        Its ``pyproject.toml``.
    extras
        Names of extras; an unknown one is a `KeyError`.
    """
    described = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    collected = set(described["dependencies"])
    wanted, seen = list(extras), set()
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in described["optional-dependencies"][extra]:
            own = _OWN.fullmatch(requirement)
            if own is None:
                collected.add(requirement)
            else:
                wanted += own["extras"].split(",")
    return sorted(collected)


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements_of(Path("pyproject.toml"), sys.argv[1:])) + "\n")
