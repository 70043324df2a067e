"""Session tokens: read as they were made, and nothing else is."""

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from store.key_format import digest_of
from store.session_tokens import new_session_token, read_session_token

PEPPER = "p" * 32
NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
TOKEN = new_session_token(str(uuid.UUID(int=7)), expires_at=NOW + timedelta(hours=12), pepper=PEPPER)


@given(st.uuids(), st.integers(-86_400, 86_400))
def test_a_token_gives_its_key_until_its_end_and_not_from_then_on(key_id: uuid.UUID, seconds: int) -> None:
    expires_at = NOW + timedelta(seconds=seconds)
    token = new_session_token(str(key_id), expires_at=expires_at, pepper=PEPPER)
    assert read_session_token(token, pepper=PEPPER, now=NOW) == (str(key_id) if seconds > 0 else None)
    just_before = expires_at - timedelta(microseconds=1)
    assert read_session_token(token, pepper=PEPPER, now=just_before) == str(key_id)
    assert read_session_token(token, pepper=PEPPER, now=expires_at) is None
    assert read_session_token(token, pepper=PEPPER + "x", now=just_before) is None


@given(st.text(st.characters()))
def test_any_other_text_is_no_token(text: str) -> None:
    assert read_session_token(text, pepper=PEPPER, now=NOW) is None
    assert read_session_token(f"{text}.{TOKEN}", pepper=PEPPER, now=NOW) is None
    assume(text)
    assert read_session_token(TOKEN + text, pepper=PEPPER, now=NOW) is None


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_a_token_of_which_one_character_is_changed_is_no_token(place: int, character: str) -> None:
    assume(TOKEN[place] != character)
    forged = TOKEN[:place] + character + TOKEN[place + 1 :]
    assert read_session_token(forged, pepper=PEPPER, now=NOW) is None


def test_the_digest_of_a_key_signs_nothing() -> None:
    signed, _, signature = TOKEN.rpartition(".")
    assert signature != digest_of(signed, PEPPER)
    assert read_session_token(f"{signed}.{digest_of(signed, PEPPER)}", pepper=PEPPER, now=NOW) is None
