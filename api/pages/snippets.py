"""The call that makes the same job again, as text to copy."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from core.spec import DistillationSpec

DISCRIMINATOR = "kind"


def curl(address: str, spec: Mapping[str, Any]) -> str:
    """Write the submission as a curl command."""
    body = json.dumps(shortened(spec), indent=2, ensure_ascii=False)
    return (
        f"curl {shlex.quote(address + '/jobs')} \\\n"
        '  --header "Authorization: Bearer $CONDENSER_API_KEY" \\\n'
        "  --header 'Content-Type: application/json' \\\n"
        f"  --data {shlex.quote(body)}"
    )


def python(address: str, spec: Mapping[str, Any]) -> str:
    """Write the submission in Python."""
    return "\n".join(
        (
            "from client import Condenser",
            "",
            f"with Condenser({address!r}) as condenser:",
            f"    job = condenser.jobs.create({_literal(shortened(spec))})",
            "    job.wait().download('student')",
        )
    )


def _literal(spec: Mapping[str, Any]) -> str:
    """Write a specification as a Python expression, a field a line."""
    fields = [f"        {name!r}: {value!r}," for name, value in spec.items()]
    return "\n".join(("{", *fields, "    }"))


def shortened(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a resolved specification what the service would put in by itself."""
    defaults = DistillationSpec(teacher=spec["teacher"]).model_dump(mode="json")
    return {"teacher": spec["teacher"]} | _differing(spec, defaults)


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    differing: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if value == default and name in defaults:
            continue
        # What comes in several kinds is one value: half of it would be another kind.
        if isinstance(value, dict) and isinstance(default, dict) and DISCRIMINATOR not in value:
            value = _differing(value, default) if value.keys() == default.keys() else value
        differing[name] = value
    return differing
