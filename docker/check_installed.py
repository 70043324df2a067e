"""Fail a build whose environment is not the locked one: ``python docker/check_installed.py LOCK IMAGE``.

Every installed distribution must have the release that the lock names. What the lock leaves out, the
libraries of an accelerator, is pinned by torch itself and may come with the worker only. The API image must
hold nothing that only trainers need.
"""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

ACCELERATOR = re.compile(r"nvidia-.*|cuda-.*|triton")
OF_TRAINERS = {"torch", "diffusers", "transformers", "numpy", "accelerate", "safetensors"}
OF_THE_TOOLS = {"pip", "setuptools"}


def faults(installed: dict[str, str], locked: dict[str, str], image: str) -> list[str]:
    """Say what is installed and should not be.

    Parameters
    ----------
    installed, locked
        Releases by normalised name; a local build of a release (``2.13.0+cpu``) counts as it.
    image
        ``api`` or ``worker``.
    """
    found = []
    for name, version in sorted(installed.items()):
        if name in OF_THE_TOOLS:
            continue
        if image == "api" and (name in OF_TRAINERS or ACCELERATOR.fullmatch(name)):
            found.append(f"{name} belongs to trainers and has no place in the API image")
        elif name not in locked:
            if not ACCELERATOR.fullmatch(name):
                found.append(f"{name} {version} is not in the lock: run make lock")
        elif version.partition("+")[0] != locked[name]:
            found.append(f"{name} is {version}, the lock says {locked[name]}")
    return found


def normalise(name: str) -> str:
    """Spell a distribution's name as indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(lock: Path) -> dict[str, str]:
    """Read the releases of a lock."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {normalise(name): version for name, version in pins}


if __name__ == "__main__":
    present = {normalise(found.metadata["Name"]): found.version for found in distributions()}
    if complaints := faults(present, read_lock(Path(sys.argv[1])), sys.argv[2]):
        sys.exit("\n".join(complaints))
