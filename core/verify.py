"""Whether a student's folder is what its manifest says, and loads: ``python -m core.verify DIR``.

Comparing the files needs nothing but Python, so that it also works where torch is not installed. Exit status:
0 whole; 1 not, with what is wrong on standard output.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from core.files import sha256

MANIFEST_FILE = "manifest.json"
FORMAT = 1
LISTED = {"path": str, "size": int, "sha256": str}
NOT_DATA = {".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl"}  # code, or what can hold code


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a folder, say what is wrong, and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m core.verify", description="Verify a student's folder.")
    parser.add_argument("folder", type=Path, help="the student, unpacked")
    folder = parser.parse_args(arguments).folder
    problems = find_problems(folder)
    if not problems and find_spec("diffusers") is None:
        _say(f"{folder}: every file is as its manifest says; not loaded, for diffusers is not installed")
        return 0
    problems = problems or find_loading_problems(folder)
    for problem in problems:
        _say(f"{folder}: {problem}")
    if not problems:
        _say(f"{folder}: every file is as its manifest says, and diffusers loads it")
    return 1 if problems else 0


def find_problems(folder: Path) -> list[str]:
    """Return how a folder differs from its manifest: files missing, altered, or not listed."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if (written_as := manifest["format"]) != FORMAT:
            return [f"{MANIFEST_FILE} has format {written_as}, of which this version knows only {FORMAT}"]
        listed = {file["path"]: file for file in map(_checked, manifest["files"])}
    except FileNotFoundError:
        return [f"there is no {MANIFEST_FILE}: is this a student's folder, unpacked?"]
    except KeyError as error:
        return [f"{MANIFEST_FILE} is broken: it has no {error}"]
    except OSError as error:
        return [f"{MANIFEST_FILE} cannot be read: {error}"]
    except (ValueError, TypeError, RecursionError) as error:
        return [f"{MANIFEST_FILE} is broken: {error}"]
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return [
        *(f"{path} is missing" for path in sorted(listed.keys() - present)),
        *(f"{path} is not listed" for path in sorted(present - listed.keys() - {MANIFEST_FILE})),
        *(f"{path} is no data" for path in sorted(present) if Path(path).suffix in NOT_DATA),
        *(
            f"{path} {change}"
            for path in sorted(listed.keys() & present)
            if (change := _change(folder / path, listed[path]))
        ),
    ]


def find_loading_problems(folder: Path) -> list[str]:
    """Return why diffusers does not load a folder whose files are as they should be."""
    from diffusers import DiffusionPipeline  # seconds to import, and not needed to compare files

    try:
        DiffusionPipeline.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
    # Whatever the library raises: the answer is the same.
    except Exception as error:
        return [f"diffusers does not load it: {error}"]
    return []


def _checked(file: Any) -> dict[str, Any]:
    """Return what a manifest lists of a file, once it was found to be of the right types.

    Raises
    ------
    ValueError
        If it is not, or the path leads out of the folder.
    """
    if not isinstance(file, dict) or any(type(file.get(name)) is not of for name, of in LISTED.items()):
        wanted = ", ".join(f"{name} ({of.__name__})" for name, of in LISTED.items())
        raise ValueError(f"it lists {file!r:.200} instead of {wanted}")
    path = PurePosixPath(file["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"it lists {file['path']!r:.200}, which is outside of the folder")
    return file


def _change(path: Path, listed: dict[str, Any]) -> str | None:
    """Return how a file differs from what is listed, or None if it does not."""
    size = path.stat().st_size
    if size != listed["size"]:
        return f"has {size:,} bytes, not {listed['size']:,}"
    return None if sha256(path) == listed["sha256"] else "has another SHA-256"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
