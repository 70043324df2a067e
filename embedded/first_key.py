"""The key that the owner of a data folder uses: made at the first start, so that nobody has to think of it.

It lies in the data folder, readable by its owner alone, and is as good as what the folder's other files hold:
the database's password and the pepper. There is no key before, none that several installations share, and
none that works for another data folder.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from embedded.errors import StackStartError
from embedded.files import write_private

KEY_FILE = "api-key"
REPOSITORY = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 30.0


def first_key(data_dir: Path) -> str | None:
    """Read the key of a data folder, if there is one that this user may read."""
    try:
        return (data_dir / KEY_FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, PermissionError):
        return None


def ensure_first_key(data_dir: Path, api_url: str, environment: Mapping[str, str]) -> None:
    """Make a key, unless the folder has one that the service takes.

    Parameters
    ----------
    data_dir
        Where the key lies.
    api_url
        The service, which answers already.
    environment
        By which the operator's command finds the database.

    Raises
    ------
    StackStartError
        If no key can be made.
    """
    known = first_key(data_dir)
    if known is not None and _is_good(known, api_url):
        return
    made = subprocess.run(
        [sys.executable, "-m", "store.admin", "create-key", "--name", "first key of this data folder"],
        cwd=REPOSITORY,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise StackStartError(f"the first API key could not be made.\n{made.stderr}")
    write_private(data_dir / KEY_FILE, made.stdout)


def _is_good(key: str, api_url: str) -> bool:
    """Ask the service with the question that needs the most of a key."""
    answer = httpx.get(
        f"{api_url}/keys",
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=ANSWER_SECONDS,
    )
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return False
    answer.raise_for_status()
    return True
