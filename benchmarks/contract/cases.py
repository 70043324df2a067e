"""Requests generated from the OpenAPI document, and the answers checked against it.

Half of the cases keep to the document and half break it. Of the ids in a path, three of four exist.
Schemathesis makes the cases and checks the answers; what it does not do here is choose how many there are of
each route.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, FailureGroup, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure

from benchmarks.contract.seed import Seeded

KNOWN_IDS_SHARE = 0.75
LONGEST_WAIT_SECONDS = 0.02
ANSWER_SECONDS = 30.0
PARTS = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

# What is right by its shape may still name a teacher, a page or an address that there is not.
SEES_THE_SHAPE_ONLY = "positive_data_acceptance"
# In a URL one text is the same as a list of that text.
FINDS_NO_LIST_IN_A_URL = "negative_data_rejection"
# A parameter of thousands of characters makes an address that is refused before it is read: 414.
REFUSALS = ["400", "401", "403", "404", "405", "409", "413", "414", "415", "422", "428", "429"]
CONFIG = SchemathesisConfig.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
)


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
    document: dict[str, Any],
    base_url: str,
    api_key: str,
    seeded: Seeded,
    *,
    cases_of_each: int,
    seed: int,
) -> Report:
    """Send generated requests to each operation.

    Parameters
    ----------
    document
        The OpenAPI document.
    base_url
        Where the service is.
    api_key
        One that may do everything.
    seeded
        Ids that exist.
    cases_of_each
        Requests to each operation, a half of which keeps to the document.
    seed
        The same cases come from the same seed.
    """
    load_all_checks()
    checks = [check for check in CHECKS.get_all() if check.__name__ != SEES_THE_SHAPE_ONLY]
    report = Report(checks=[check.__name__ for check in checks])
    chance = random.Random(seed)
    with requests.Session() as session:
        session.trust_env = False
        schema = schemathesis.openapi.from_dict(document, config=CONFIG)
        schema.auth.set_from_requests(Bearer(api_key))
        operations = [found.ok() for found in schema.get_all_operations()]
        # What is to be found must not have been deleted before.
        for operation in sorted(operations, key=lambda operation: operation.method.upper() == "DELETE"):
            for part, mode in enumerate(PARTS):
                chosen = [check for check in checks if _applies(check, operation)]
                send = partial(_aim_and_send, seeded, chance, base_url, session, chosen, report)
                count = cases_of_each // len(PARTS)
                try:
                    _generate(operation, mode, count, seed + part, send)
                except Unsatisfiable:  # nothing about this operation could be wrong
                    _generate(operation, GenerationMode.POSITIVE, count, seed + part, send)
    return report


class Bearer(requests.auth.AuthBase):
    """Sends an API key with every request whose case is not about what happens without."""

    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request."""
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


def _applies(check: Any, operation: Any) -> bool:
    takes_list = any("array" in str(parameter.definition.get("schema")) for parameter in operation.query)
    return not (takes_list and check.__name__ == FINDS_NO_LIST_IN_A_URL)


def _generate(
    operation: Any, mode: GenerationMode, count: int, seed: int, send: Callable[[Case], None]
) -> None:
    """Make cases of an operation and send each."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def make(case: Case) -> None:
        send(case)

    make()


def _aim_and_send(
    seeded: Seeded,
    chance: random.Random,
    base_url: str,
    session: requests.Session,
    checks: list[Any],
    report: Report,
    case: Case,
) -> None:
    _aim(case, seeded, chance)
    _send(case, base_url, session, checks, report)


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
                answer = f"{response.status_code}: {response.text[:300]}"
                story = f"{failure.message}\n{answer}\n{case.as_curl_command()}"
                report.failures.setdefault((name, failure.title), story)
