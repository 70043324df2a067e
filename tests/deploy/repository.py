"""Where the files of a deployment are, and what the images bring of them."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
DOCKERFILES = sorted((REPOSITORY / "docker").glob("*.Dockerfile"))


def text(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def compose() -> dict[str, Any]:
    """The compose file with its anchors resolved and its variables as they stand."""
    loaded: dict[str, Any] = yaml.safe_load(text("docker-compose.yml"))
    return loaded


def rendered(environment: dict[str, str], profiles: set[str]) -> dict[str, Any]:
    """The services of some profiles, with variables put in as compose does."""
    filled = yaml.safe_load(interpolate(text("docker-compose.yml"), environment))
    return {
        name: service
        for name, service in filled["services"].items()
        if not service.get("profiles") or profiles & set(service["profiles"])
    }


def interpolate(document: str, environment: dict[str, str]) -> str:
    """Put variables in.

    ``${NAME:?message}`` is refused without one, ``${NAME:-default}`` has another, and so has
    ``${NAME-default}`` where there is no variable, but not where it is empty.
    """

    def fill(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        value = environment.get(match["name"], "")
        if not value and match["operator"] == ":?":
            raise LookupError(f"{match['name']}: {match['word']}")
        if match["operator"] == "-" and match["name"] in environment:
            return value
        return value or match["word"]

    pattern = r"(?P<escaped>\$\$)|\$\{(?P<name>[A-Z_0-9]+)(?P<operator>:?-|:\?)(?P<word>[^}]*)\}"
    return re.sub(pattern, fill, document)


def example_environment() -> dict[str, str]:
    """The variables of ``.env.example``."""
    lines = re.findall(r"^([A-Z_0-9]+)=(.*)$", text(".env.example"), re.MULTILINE)
    return dict(lines)
