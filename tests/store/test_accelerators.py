"""Classes of accelerators: which a job waits for, and which a worker serves."""

import pytest
from pydantic import ValidationError

from store.accelerators import GIB, AcceleratorClass, least_class_for, lesser_queues
from store.errors import InvalidInputError
from store.settings import Settings

NAMED = "cpu=8, gpu=24, gpu-80gb=80"


def settings_of(monkeypatch: pytest.MonkeyPatch, classes: str, queue: str = "gpu") -> Settings:
    monkeypatch.setenv("ACCELERATOR_CLASSES", classes)
    return Settings(database_url="postgresql://h/d", redis_url="redis://h", worker_queue=queue)


def test_a_job_waits_for_the_least_class_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = settings_of(monkeypatch, NAMED).classes
    needs = {1: "cpu", 8 * GIB: "cpu", 8 * GIB + 1: "gpu", 70 * GIB: "gpu-80gb"}
    assert {need: least_class_for(classes, need).name for need in needs} == needs
    with pytest.raises(InvalidInputError, match=r"takes 81\.0 GiB .* more than 80\.0") as refused:
        least_class_for(classes, 81 * GIB)
    assert refused.value.field == "training.micro_batch_size"
    assert least_class_for([*classes, AcceleratorClass("any", None)], 10**15).name == "any"


def test_a_worker_serves_its_class_and_the_lesser_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, NAMED).lesser_queues == ["cpu"]
    assert settings_of(monkeypatch, NAMED, "gpu-80gb").lesser_queues == ["cpu", "gpu"]
    assert settings_of(monkeypatch, NAMED, "another").lesser_queues == []
    assert settings_of(monkeypatch, "").lesser_queues == lesser_queues([], "cpu") == []


@pytest.mark.parametrize("classes", ["gpu=much", "=8", "gpu=0"])
def test_what_is_no_class_is_refused(classes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="is no class"):
        settings_of(monkeypatch, classes)
