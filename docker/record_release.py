"""Record the project as installed: ``python docker/record_release.py pyproject.toml``.

The images hold its packages as plain folders. Processes that tell their release, as workers do, ask the
environment for it, which knows only what was installed.
"""

import sys
import sysconfig
import tomllib
from pathlib import Path


def record(project: Path, environment: Path) -> Path:
    """Write the metadata of a distribution without files.

    Parameters
    ----------
    project
        Its ``pyproject.toml``.
    environment
        The folder of an environment's packages.

    Returns
    -------
    Path
        The folder written, as `importlib.metadata` finds it.
    """
    described = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    name, version = described["name"], described["version"]
    folder = environment / f"{name}-{version}.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(metadata, encoding="utf-8")
    return folder


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sysconfig.get_path("purelib")))
