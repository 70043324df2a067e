"""A key is nowhere but with its owner: not in logs, problems, events nor the database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, text

from store.key_format import SHOWN_CHARACTERS, new_key
from tests.api.test_api_process import process as process


def test_a_key_is_in_no_log_problem_event_or_table(
    process: Any,
    free_port: int,
    api_key: str,
    engine: Engine,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    unknown, secrets, answers = new_key(), [api_key], []
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=20, trust_env=False) as http:

        def is_ready() -> bool:
            try:
                return http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(is_ready)
        good = {"Authorization": f"Bearer {api_key}"}
        made = http.post("/keys", json={"name": "k", "scopes": ["write"]}, headers=good)
        secrets += [made.json()["key"], unknown]
        for key in secrets:
            headers = {"Authorization": f"Bearer {key}"}
            answers += [
                http.post("/jobs", json={"teacher": "tiny"}, headers=headers),
                http.post("/jobs", json={"teacher": "tiny", key: 1}, headers=headers),
                http.post("/jobs", content=key, headers=headers),
                http.get("/jobs", params={"after": key, "teacher": key}, headers=headers),
                http.get(f"/jobs/{key}/events", headers=good),
                http.delete(f"/keys/{key}", headers=good),
                http.get(f"/{key}", headers=good),
                http.get("/jobs", headers={"Authorization": f"Bearer {key}x"}),
                http.get("/jobs", headers={"Authorization": key}),
                http.get("/jobs", headers=headers | {"Host": f"{key}.example"}),
            ]
        # An error that nobody foresaw is logged with all that is known of it.
        with engine.begin() as connection:
            connection.execute(text("""UPDATE jobs SET student = '{"secret": 1}'"""))
        answers.append(http.get("/jobs", params={"teacher": "tiny"}, headers=good))
        assert answers[-1].status_code == 500
    process.terminate()
    process.wait(20)
    log = (tmp_path / "api.log").read_text()
    assert "Traceback" in log
    assert '"/keys/condenser_' in log, "the log tells of the request, without the key"
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).scalars()
        rows = [
            str(row) for table in tables for row in connection.execute(text(f"SELECT t::text FROM {table} t"))
        ]
    for key in secrets:
        secret = key[SHOWN_CHARACTERS:]
        assert secret not in log
        assert not [row for row in rows if secret in row]
        assert not [answer.request for answer in answers if secret in answer.text]
        assert not [answer.request for answer in answers if secret in str(answer.headers)]
