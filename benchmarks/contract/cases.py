"""Requests generated from the OpenAPI document, and the answers checked against it.

Half of the cases keep to the document and half break it. Of the ids in a path, three of four exist.
Schemathesis makes the cases and checks the answers; what it does not do here is choose how many there are of
each route.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    CHECKS,
    FailureGroup,
    load_all_checks,
)
from schemathesis.core.failures import Failure

from benchmarks.contract.seed import Seeded

KNOWN_IDS_SHARE = 0.75
LONGEST_WAIT_SECONDS = 0.02
ANSWER_SECONDS = 30.0
PARTS = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

# What is right by its shape may still name a teacher, a page or an address that this installation does not
# have.
DEPEND_ON_THE_INSTALLATION = frozenset({"positive_data_acceptance"})
# A JSON number may come as text, as pydantic reads it: the service is more lenient than its document says.
LENIENT = frozenset({"negative_data_rejection"})


@dataclass
class Report:
    """What was asked and what was found."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    checks: list[str] = field(default_factory=list)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        yield f"{sum(self.cases.values())} cases over {len(self.cases)} operations"
        yield f"checks: {', '.join(self.checks)}"
        yield "answers: " + ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        yield f"violations: {len(self.failures)}"
        for (operation, title), story in self.failures.items():
            yield f"\n{operation}: {title}\n{story}"


def run_cases(
    document: dict[str, Any], base_url: str, seeded: Seeded, *, cases_of_each: int, seed: int
) -> Report:
    """Send generated requests to each operation.

    Parameters
    ----------
    document
        The OpenAPI document.
    base_url
        Where the service is.
    seeded
        Ids that exist.
    cases_of_each
        Requests to each operation, a half of which keeps to the document.
    seed
        The same cases come from the same seed.
    """
    load_all_checks()
    skipped = DEPEND_ON_THE_INSTALLATION | LENIENT
    checks = [check for check in CHECKS.get_all() if check.__name__ not in skipped]
    report = Report(checks=[check.__name__ for check in checks])
    chance = random.Random(seed)
    with requests.Session() as session:
        session.trust_env = False
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = found.ok()
            for mode in PARTS:

                @hypothesis.seed(seed)
                @hypothesis.settings(
                    max_examples=cases_of_each // len(PARTS),
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @hypothesis.given(_cases(operation, mode))
                def send(case: Case) -> None:
                    _aim(case, seeded, chance)
                    _send(case, base_url, session, checks, report)

                send()
    return report


def _cases(operation: Any, mode: GenerationMode) -> st.SearchStrategy[Case]:
    """Cases of an operation; one without anything that could be wrong has right ones only."""
    takes_something = operation.body or operation.query or operation.headers or operation.path_parameters
    if mode is GenerationMode.NEGATIVE and not takes_something:
        mode = GenerationMode.POSITIVE
    return operation.as_strategy(generation_mode=mode)


def _aim(case: Case, seeded: Seeded, chance: random.Random) -> None:
    """Put ids that exist into most paths, and shorten the waits."""
    if case.path_parameters and chance.random() < KNOWN_IDS_SHARE:
        known = seeded.parameters(chance)
        case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 0 < wait <= 60:
        case.query["wait"] = min(wait, LONGEST_WAIT_SECONDS)


def _send(case: Case, base_url: str, session: requests.Session, checks: list[Any], report: Report) -> None:
    name = f"{case.operation.method.upper()} {case.operation.path}"
    response = case.call(base_url=base_url, session=session, allow_redirects=False, timeout=ANSWER_SECONDS)
    report.cases[name] += 1
    report.statuses[response.status_code] += 1
    try:
        case.validate_response(response, checks=checks)
    except FailureGroup as group:
        for failure in group.exceptions:
            if isinstance(failure, Failure):
                story = f"{failure.message}\n{response.status_code}: {response.text[:300]}\n{case.as_curl_command()}"
                report.failures.setdefault((name, failure.title), story)
