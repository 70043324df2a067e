"""Entries of the cache that jobs on one machine share: folders named by what their content follows from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.files import write_json

DESCRIPTION_FILE = "entry.json"


def cache_entry(cache: Path, kind: str, identity: Mapping[str, Any]) -> Path:
    """Return the folder of an entry, after writing its description anew: that is how it was used last.

    Parameters
    ----------
    cache
        The cache's folder.
    kind
        What entries of this sort are called.
    identity
        Everything that the content follows from, as JSON can hold it.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cache / kind / key
    write_json(folder / DESCRIPTION_FILE, identity)
    return folder
