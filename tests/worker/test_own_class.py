"""The class that a worker is of, by its settings and by what it trains on."""

import pytest

from store.settings import Settings
from worker.device import Device
from worker.own_class import UnfitDeviceError, with_own_class

CLASSES = "cpu=8,cpu-big=64,gpu=24,gpu-80gb=80"
GIB = 2**30
H100 = Device("NVIDIA H100 80GB HBM3", is_accelerator=True, count=2, memory_bytes=81_559 * 2**20)
A10G = Device("NVIDIA A10G", is_accelerator=True, count=1, memory_bytes=23_028 * 2**20)
A2 = Device("NVIDIA A2", is_accelerator=True, count=1, memory_bytes=15_356 * 2**20)
UNKNOWN = Device("NVIDIA GB10", is_accelerator=True, count=1, memory_bytes=None)
HOST = Device("a processor", is_accelerator=False, count=16, memory_bytes=256 * GIB)
LAPTOP = Device("a processor", is_accelerator=False, count=4, memory_bytes=8 * GIB - 300 * 2**20)


def settings(classes: str = CLASSES, **given: object) -> Settings:
    urls = {"database_url": "postgresql://h/d", "redis_url": "redis://h"}
    return Settings.model_validate({**urls, "accelerator_classes": classes, **given})


@pytest.mark.parametrize(
    ("device", "classes", "queue"),
    [
        (H100, CLASSES, "gpu-80gb"),
        (A10G, CLASSES, "gpu"),
        (A2, CLASSES, "cpu"),  # too small for any other: a job of 8 GiB it can hold
        (HOST, CLASSES, "cpu-big"),
        (LAPTOP, CLASSES, "cpu"),
        (H100, "", "cpu"),
        (HOST, "cpu,gpu", "cpu"),
        (UNKNOWN, "cpu,gpu", "gpu"),
    ],
)
def test_a_worker_that_is_told_nothing_is_of_the_greatest_class_it_serves(
    device: Device, classes: str, queue: str
) -> None:
    found = with_own_class(settings(classes), device)
    assert found.worker_queue == queue


def test_an_empty_queue_is_none_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose and Kubernetes hand on a variable that is empty; nobody listens to a queue without a name."""
    monkeypatch.setenv("WORKER_QUEUE", "")
    assert with_own_class(settings(), H100).worker_queue == "gpu-80gb"
    assert with_own_class(settings(""), HOST).worker_queue == "cpu"


def test_a_job_that_nobody_can_count_goes_to_the_queue_that_is_told_or_else_holds_most() -> None:
    assert settings().queue_of_unknown_memory == "gpu-80gb"
    assert settings(worker_queue="gpu").queue_of_unknown_memory == "gpu"
    assert settings("").queue_of_unknown_memory == "cpu"


def test_what_is_told_is_kept_where_the_device_serves_it() -> None:
    assert with_own_class(settings(worker_queue="gpu"), H100).worker_queue == "gpu"
    assert with_own_class(settings(worker_queue="gpu-80gb"), UNKNOWN).worker_queue == "gpu-80gb"
    assert with_own_class(settings(worker_queue="mine"), HOST).worker_queue == "mine", "no class of ours"
    assert with_own_class(settings("", worker_queue="gpu"), HOST).worker_queue == "gpu"


@pytest.mark.parametrize(
    ("device", "given", "sentence"),
    [
        (HOST, {"worker_queue": "gpu"}, "WORKER_QUEUE is gpu, and gpu is a class of accelerators."),
        (
            A10G,
            {"worker_queue": "gpu-80gb"},
            "a class of 80 GiB. This machine has 1 x NVIDIA A10G",
        ),
        (A2, {"classes": "gpu=24"}, "No class of ACCELERATOR_CLASSES is for this machine"),
        (UNKNOWN, {"classes": "gpu=24"}, "unknown memory"),
        (H100, {"worker_processes": 8}, "WORKER_PROCESSES is 8, and this machine has 2 x NVIDIA H100"),
    ],
)
def test_what_contradicts_the_machine_is_refused_in_a_sentence(
    device: Device, given: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UnfitDeviceError) as refusal:
        with_own_class(settings(**given), device)  # type: ignore[arg-type]
    assert sentence in str(refusal.value)


def test_processes_on_a_processor_are_its_own_affair() -> None:
    assert with_own_class(settings(worker_processes=32), HOST).worker_processes == 32
