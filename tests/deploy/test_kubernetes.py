"""The manifests for Kubernetes: that they fit together, and what they promise."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.serving import SERVING_OPTIONS
from store.settings import Settings
from tests.deploy.repository import REPOSITORY, text

BASE = REPOSITORY / "deploy" / "kubernetes" / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
DOCUMENTS: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((BASE / name).read_text())
]
SETTINGS = {name.upper() for name in Settings.model_fields}


def find(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in DOCUMENTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> dict[str, dict[str, Any]]:
    workloads = [each for each in DOCUMENTS if "template" in each.get("spec", {})]
    return {each["metadata"]["name"]: each["spec"]["template"] for each in workloads}


def container(name: str) -> dict[str, Any]:
    [only] = pods()[name]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_the_kustomization_names_every_file() -> None:
    assert {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"} == set(
        KUSTOMIZATION["resources"]
    )


@pytest.mark.parametrize("name", ["api", "migrate", "worker"])
def test_pods_keep_to_what_a_restricted_namespace_allows(name: str) -> None:
    pod, only = pods()[name]["spec"], container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    security = only["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"] for mount in only["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert "memory" in only["resources"]["limits"]


def test_images_are_pinned_to_the_release_of_this_tree() -> None:
    version = re.search(r'^version = "([^"]+)"', text("pyproject.toml"), re.MULTILINE)
    assert version
    assert {image["newTag"] for image in KUSTOMIZATION["images"]} == {version[1]}
    used = {container(name)["image"] for name in pods()}
    assert used == {image["name"] for image in KUSTOMIZATION["images"]}


def test_every_variable_is_a_setting_and_no_secret_lies_in_the_files() -> None:
    assert set(find("ConfigMap", "condenser")["data"]) <= SETTINGS
    assert not [each for each in DOCUMENTS if each["kind"] == "Secret"]
    for name in pods():
        for variable in container(name).get("env", []):
            assert variable["name"] in SETTINGS
            assert variable["valueFrom"]["secretKeyRef"]["key"] == variable["name"]
            assert "value" not in variable


def test_workers_see_no_secret_that_only_the_api_needs() -> None:
    given = {variable["name"] for variable in container("worker")["env"]}
    assert {"DATABASE_URL", "REDIS_URL"} <= given
    assert not {"API_KEY_PEPPER", "WEBHOOK_SECRET_KEYS"} & given
    assert container("worker")["envFrom"] == [{"configMapRef": {"name": "condenser"}}]


def test_a_pod_that_is_taken_away_has_time_for_what_it_must_end() -> None:
    grace = pods()["worker"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= 2 * Settings.model_fields["cancel_grace_seconds"].default
    assert (
        pods()["api"]["spec"]["terminationGracePeriodSeconds"] > SERVING_OPTIONS["timeout_graceful_shutdown"]
    )


def gibibytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    assert unit == "Gi"
    return int(number)


def test_a_worker_asks_for_the_disk_that_it_may_fill() -> None:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pods()["worker"]["spec"]["volumes"]}
    on_disk = {name: volume["sizeLimit"] for name, volume in volumes.items() if "medium" not in volume}
    resources = container("worker")["resources"]
    asked = gibibytes(resources["requests"]["ephemeral-storage"])
    assert asked >= sum(map(gibibytes, on_disk.values()))
    assert gibibytes(resources["limits"]["ephemeral-storage"]) >= asked
    cache = int(find("ConfigMap", "condenser")["data"]["CACHE_MAX_BYTES"])
    assert cache < gibibytes(on_disk["data"]) * 2**30


def test_the_manuals_patch_puts_a_volume_in_the_place_of_the_workers_own() -> None:
    [(position, value)] = re.findall(
        r"path: /spec/template/spec/volumes/(\d+), value: (\{.+\})\}$", text("docs/deploying.md"), re.M
    )
    replaced = pods()["worker"]["spec"]["volumes"][int(position)]
    assert replaced["name"] == yaml.safe_load(value)["name"] == "data"


def test_workers_go_to_accelerators() -> None:
    pod = pods()["worker"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert container("worker")["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_probes_ask_paths_and_ports_that_are_there() -> None:
    api = container("api")
    assert api["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for name in ("api", "worker"):
        ports = {port["name"] for port in container(name)["ports"]}
        for kind in ("startupProbe", "livenessProbe"):
            assert container(name)[kind]["httpGet"]["port"] in ports
    # The API answers only to names that it knows, and kubelet would ask by the pod's address.
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert api[kind]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


def test_workers_are_counted_by_the_queue_that_they_listen_to() -> None:
    scaled = find("ScaledObject", "worker")["spec"]
    assert scaled["scaleTargetRef"] == {"name": "worker"}
    assert "replicas" not in find("Deployment", "worker")["spec"], "it would undo what KEDA did at each apply"
    [trigger] = scaled["triggers"]
    queue = find("ConfigMap", "condenser")["data"]["WORKER_QUEUE"]
    query = trigger["metadata"]["query"]
    assert set(re.findall(r'queue="([^"]*)"', query)) == {queue}
    counted, _and, known = query.partition(" and on() ")
    assert set(re.findall(r"condenser_\w+", counted)) == {"condenser_queue_depth", "condenser_jobs"}
    assert 'status="running"' in counted
    assert known == "(max(condenser_database_up) == 1)"


def test_workers_are_left_alone_while_nobody_knows_how_many_jobs_there_are() -> None:
    """The condition is of the whole sum, in which no figures are zero, and nothing takes its place."""
    scaled = find("ScaledObject", "worker")["spec"]
    [trigger] = scaled["triggers"]
    counted = trigger["metadata"]["query"].partition(" and on() ")[0]
    assert re.fullmatch(r"\((\(max\(\S+\) or vector\(0\)\)( \+ )?){2}\)", counted)
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert "fallback" not in scaled


@pytest.mark.parametrize("release", ["1.34", "1.37"])
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_knows_every_field(document: dict[str, Any], release: str) -> None:
    """The lint step passes over a kind that has no schema; here there may be no other such than KEDA's."""
    if document["apiVersion"] == "keda.sh/v1alpha1":
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(document, release, strict=True)
    else:
        assert kubernetes_validate.validate(document, release, strict=True) == release


def test_the_scaled_object_has_kedas_fields() -> None:
    """KEDA's definition, as far as it is used here; how it scales is the autoscaler's own form."""
    spec = find("ScaledObject", "worker")["spec"]
    whole_numbers = {"minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"}
    assert set(spec) == whole_numbers | {"scaleTargetRef", "advanced", "triggers"}
    assert all(type(spec[name]) is int for name in whole_numbers)
    assert 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    assert set(spec["advanced"]) == {"horizontalPodAutoscalerConfig"}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "maxReplicas": spec["maxReplicaCount"],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }
    assert kubernetes_validate.validate(autoscaler, "1.34", strict=True)
    [trigger] = spec["triggers"]
    assert set(trigger) == {"type", "metadata"}
    assert trigger["type"] == "prometheus"
    named = {"serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues"}
    assert set(trigger["metadata"]) == named
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes text alone"


def test_selectors_find_their_pods() -> None:
    for kind, name in (("Deployment", "api"), ("Deployment", "worker"), ("PodDisruptionBudget", "api")):
        selected = find(kind, name)["spec"]["selector"]["matchLabels"]
        assert selected.items() <= pods()[name]["metadata"]["labels"].items()
    assert find("Service", "api")["spec"]["selector"].items() <= pods()["api"]["metadata"]["labels"].items()


def test_what_an_upgrade_replaces_in_order_is_labelled() -> None:
    named = {
        each["metadata"]["labels"]["app.kubernetes.io/name"]: each["kind"]
        for each in DOCUMENTS
        if "app.kubernetes.io/name" in each["metadata"].get("labels", {})
    }
    assert named == {"migrate": "Job", "worker": "Deployment", "api": "Deployment"}


def left_out(selector: str) -> set[str]:
    """The values that a selector by inequality refuses; an object without the label passes it."""
    match = re.fullmatch(r"app\.kubernetes\.io/name (?:!= (\w+)|notin \(([\w, ]+)\))", selector)
    assert match, selector
    return set((match[1] or match[2]).split(", "))


def test_the_manuals_upgrade_migrates_then_replaces_workers_then_the_api() -> None:
    applied = re.findall(r"^    kubectl apply -k \.(?: --selector '(.+)')?$", text("docs/deploying.md"), re.M)
    _first_installation, *steps = applied
    chosen = [pods().keys() - (left_out(selector) if selector else set()) for selector in steps]
    assert chosen == [{"migrate"}, {"migrate", "worker"}, {"migrate", "worker", "api"}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_renders_it() -> None:
    made = subprocess.run(["kubectl", "kustomize", str(BASE)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    documents = list(yaml.safe_load_all(made.stdout))
    assert {(each["kind"], each["metadata"]["name"]) for each in documents} == {
        (each["kind"], each["metadata"]["name"]) for each in DOCUMENTS
    }
    assert {each["metadata"].get("namespace", "condenser") for each in documents} == {"condenser"}
    assert "condenser-worker:0.1.0" in made.stdout
