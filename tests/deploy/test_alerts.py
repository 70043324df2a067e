"""The alarms: every metric they name exists, with the labels they ask for, and the manual explains each."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from sqlalchemy import Engine

from api.monitoring import ApiMetrics
from worker.monitoring import REGISTRY

REPOSITORY = Path(__file__).parents[2]
RULES = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
MANUAL = (REPOSITORY / "docs" / "operations.md").read_text()
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")
DURATION = re.compile(r"\d+[smhd]")


@pytest.fixture
def exposed(engine: Engine) -> dict[str, set[str]]:
    """Every sample name that an API or a worker can expose, with its labels."""
    metrics = ApiMetrics()
    metrics.watch(engine, lease_seconds=60)
    return _names(metrics.registry) | _names(REGISTRY)


def _names(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Names by what was registered, not by samples: a metric with labels has none before its first use."""
    names: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        described: list[Metric] = list(
            collector.describe() if hasattr(collector, "describe") else collector.collect()
        )
        labels = set(getattr(collector, "_labelnames", ()))
        for metric in described:
            found = labels or {label for sample in metric.samples for label in sample.labels}
            suffixes = {"counter": ("_total",), "histogram": HISTOGRAM_SUFFIXES}.get(metric.type, ("",))
            for suffix in suffixes:
                names[metric.name + suffix] = found | ({"le"} if suffix == "_bucket" else set())
    return names


def test_every_metric_of_every_alarm_exists(exposed: dict[str, set[str]]) -> None:
    for name, rule in ALERTS.items():
        named = re.findall(r"\bcondenser_[a-z_]+", rule["expr"])
        assert named, name
        assert set(named) <= set(exposed), name


def test_every_label_that_an_alarm_selects_by_exists(exposed: dict[str, set[str]]) -> None:
    known = {label for labels in exposed.values() for label in labels}
    for name, rule in ALERTS.items():
        for metric, selector in re.findall(r"\b(condenser_[a-z_]+)\{([^}]*)\}", rule["expr"]):
            selected = set(re.findall(r"(\w+)=~?\"", selector))
            # Figures of the job table have their labels from rows, which an empty table has none of.
            assert selected <= (exposed[metric] or known | {"queue", "status", "worker"}), (name, metric)


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alarm_is_whole_and_the_manual_says_what_to_do(name: str) -> None:
    rule: dict[str, Any] = ALERTS[name]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"].endswith(".")
    assert DURATION.fullmatch(rule.get("for", "0s"))
    assert rule["expr"].count("(") == rule["expr"].count(")")
    section = MANUAL.partition(f"### {name}\n")[2].partition("\n#")[0]
    assert len(section.split()) > 10


def test_the_manual_explains_no_alarm_that_is_not_there() -> None:
    assert set(re.findall(r"^### (Condenser\w+)$", MANUAL, re.MULTILINE)) == set(ALERTS)


def test_the_manual_lists_every_metric(exposed: dict[str, set[str]]) -> None:
    listed = MANUAL.partition("## Metrics")[2].partition("## Alarms")[0]
    for name in exposed:
        stem = re.sub(r"_(bucket|count|sum)$", "", name)
        assert f"`{stem}`" in listed or stem == "condenser_database_connections_limit", stem
