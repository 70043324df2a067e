"""The class of accelerators that a worker is of: the one it is told, or the greatest its device can serve."""

from store.accelerators import GIB
from store.settings import Settings
from worker.device import Device


class UnfitDeviceError(Exception):
    """The settings ask of the device what it is not; the text says what to change."""


def with_own_class(settings: Settings, device: Device) -> Settings:
    """Return a worker's settings with ``worker_queue`` of its device.

    A queue that the settings name is kept; of one that is no class nothing is known to be wrong. So is the
    default one where there are no classes.

    Parameters
    ----------
    settings
        The worker's, in which ``worker_queue`` may be left out.
    device
        What it trains on.

    Raises
    ------
    UnfitDeviceError
        If the named class is not for the device, no class is, or a job is given more accelerators than there
        are.
    """
    if device.is_accelerator and settings.worker_processes > device.count:
        raise UnfitDeviceError(
            f"WORKER_PROCESSES is {settings.worker_processes}, and this machine has "
            f"{_describe(device)}: set it to {device.count} at most."
        )
    candidates = [
        one for one in settings.classes if not settings.is_queue_named or one.name == settings.worker_queue
    ]
    if not candidates:
        return settings
    lacks = [one.lack_of(device.is_accelerator, device.memory_bytes) for one in candidates]
    if settings.is_queue_named:
        if lacks[0] is not None:
            raise UnfitDeviceError(
                f"WORKER_QUEUE is {settings.worker_queue}, and {lacks[0]}. This machine has "
                f"{_describe(device)}: leave WORKER_QUEUE empty, and the worker takes the class that fits."
            )
        return settings
    is_known = device.memory_bytes is not None
    served = [
        one
        for one, lack in zip(candidates, lacks, strict=True)
        if lack is None and (is_known or one.memory_bytes is None)
    ]
    if not served:
        raise UnfitDeviceError(
            f"No class of ACCELERATOR_CLASSES is for this machine, as far as is known: it has "
            f"{_describe(device)}. Add one that is, or name the worker's own by WORKER_QUEUE."
        )
    return settings.model_copy(update={"worker_queue": served[-1].name})


def _describe(device: Device) -> str:
    memory = "unknown memory" if device.memory_bytes is None else f"{device.memory_bytes / GIB:.1f} GiB"
    return f"{device.count} x {device.name}, {memory}"
