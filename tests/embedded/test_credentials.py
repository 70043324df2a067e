"""Credentials of a data folder: made once, and completed when a release needs more of them."""

import json
from pathlib import Path

from embedded.credentials import Credentials


def test_what_an_older_release_did_not_know_is_added_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    first = Credentials.load_or_generate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Credentials.load_or_generate(path) == first
    known = json.loads(path.read_text())
    del known["webhook_secret_key"]
    path.write_text(json.dumps(known))
    completed = Credentials.load_or_generate(path)
    assert completed.postgres_password == first.postgres_password
    assert completed.webhook_secret_key != first.webhook_secret_key
    assert Credentials.load_or_generate(path) == completed
