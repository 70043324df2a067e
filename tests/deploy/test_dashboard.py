"""Grafana's dashboard: it draws all that the service measures, and says of each picture what it shows."""

import json
import re

import yaml
from sqlalchemy import Engine

from api.monitoring import ApiMetrics
from store.monitoring import LiveJobs, Snapshot
from tests.deploy.repository import REPOSITORY, compose, text
from worker.monitoring import REGISTRY

DASHBOARD = json.loads(text("deploy/grafana/dashboards/condenser.json"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
OF_ROWS = {"queue", "status", "worker"}


def exposed(engine: Engine) -> dict[str, set[str]]:
    """Every metric that an API or a worker exposes, with its labels."""
    metrics = ApiMetrics()
    metrics.watch(engine, lease_seconds=60)
    found: dict[str, set[str]] = {}
    for registry in (metrics.registry, REGISTRY):
        for collector in list(registry._collector_to_names):
            for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
                labels = set(getattr(collector, "_labelnames", ())) or {
                    label for sample in metric.samples for label in sample.labels
                }
                found[metric.name] = labels
    return found


def test_every_metric_is_drawn_and_every_drawn_metric_exists(engine: Engine) -> None:
    stems = {
        re.sub(r"_(bucket|count|sum|total)$", "", name)
        for query in QUERIES
        for name in re.findall(r"\bcondenser_[a-z_]+", query)
    }
    assert stems == {re.sub(r"_total$", "", name) for name in exposed(engine)}


def test_queries_group_and_select_by_labels_that_exist(engine: Engine) -> None:
    labels = {label for of_metric in exposed(engine).values() for label in of_metric}
    known = labels | OF_ROWS | {"le", "instance"}
    for query in QUERIES:
        assert query.count("(") == query.count(")"), query
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            assert {label.strip() for label in group.split(",")} <= known, query
        assert set(re.findall(r"(\w+)=~?\"", query)) <= known, query
    legends = [target["legendFormat"] for panel in PANELS for target in panel["targets"]]
    assert {label for legend in legends for label in re.findall(r"\{\{(\w+)\}\}", legend)} <= known


def test_figures_of_the_job_table_are_not_added_up_over_processes() -> None:
    """Each API process tells the same of them: the maximum comes before any sum."""
    shared = (
        "condenser_jobs",
        "condenser_queue_depth",
        "condenser_oldest_job_seconds",
        "condenser_ended_jobs",
    )
    for query in QUERIES:
        for name in shared:
            for before in re.findall(rf"([\w ,()]*)\(?{name}\b", query):
                assert "max" in before, query


def test_panels_are_whole_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_grafana_finds_the_dashboard_and_its_source() -> None:
    provisioning = "deploy/grafana/provisioning"
    [source] = yaml.safe_load(text(f"{provisioning}/datasources/prometheus.yml"))["datasources"]
    used = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert used == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load(text(f"{provisioning}/dashboards/condenser.yml"))["providers"]
    grafana = compose()["services"]["grafana"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    folder = mounts[provider["options"]["path"]]
    assert (REPOSITORY / folder / "condenser.json").is_file()
    assert (REPOSITORY / mounts["/etc/grafana/provisioning"] / "datasources").is_dir()
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/condenser.json"


def test_the_labels_of_rows_are_those_that_the_job_table_gives() -> None:
    fields = set(LiveJobs.__dataclass_fields__)
    assert OF_ROWS - {"worker"} <= fields
    assert "beat_seconds" in Snapshot.__dataclass_fields__
