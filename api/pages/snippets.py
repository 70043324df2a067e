"""The call that makes the same job again, as text to copy.

A specification with many captions of its own is shown by some of them, and its call clones the job.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from core.spec import DistillationSpec

DISCRIMINATOR = "kind"
SHOWN_TEXTS = 50
"""More than the fields have that hold a few texts: the grids' prompts are 32 at most."""


def curl(address: str, job_id: str, spec: Mapping[str, Any]) -> str:
    """Write the submission as a curl command."""
    if abridged(spec) != spec:
        return (
            f"curl --request POST {shlex.quote(f'{address}/jobs/{job_id}/clone')} \\\n"
            '  --header "Authorization: Bearer $CONDENSER_API_KEY"'
        )
    body = json.dumps(shortened(spec), indent=2, ensure_ascii=False)
    return (
        f"curl {shlex.quote(address + '/jobs')} \\\n"
        '  --header "Authorization: Bearer $CONDENSER_API_KEY" \\\n'
        "  --header 'Content-Type: application/json' \\\n"
        f"  --data {shlex.quote(body)}"
    )


def python(address: str, job_id: str, spec: Mapping[str, Any]) -> str:
    """Write the submission in Python."""
    create = f"create({_literal(shortened(spec))})"
    if abridged(spec) != spec:
        create = f"get({job_id!r}).clone()"
    return "\n".join(
        (
            "from client import Condenser",
            "",
            f"with Condenser({address!r}) as condenser:",
            f"    job = condenser.jobs.{create}",
            "    job.wait().download('student')",
        )
    )


def _literal(spec: Mapping[str, Any]) -> str:
    """Write a specification as a Python expression, a field a line."""
    fields = [f"        {name!r}: {value!r}," for name, value in spec.items()]
    return "\n".join(("{", *fields, "    }"))


def abridged(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten the long lists of a specification, and say in each how many entries were left out."""
    return {name: _abridged(value) for name, value in spec.items()}


def _abridged(value: Any) -> Any:
    if isinstance(value, dict):
        return abridged(value)
    if isinstance(value, list) and len(value) > SHOWN_TEXTS:
        return [*value[:SHOWN_TEXTS], f"… and {len(value) - SHOWN_TEXTS:,} more"]
    return value


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
