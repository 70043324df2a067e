"""The form of API keys: what is one, what is a mistyped one, and what is none."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from store.key_format import (
    ALPHABET,
    PREFIX,
    RANDOM_CHARACTERS,
    SHOWN_CHARACTERS,
    digest_of,
    is_well_formed,
    key_of,
    masked,
    new_key,
)

SCANNER = re.compile(r"condenser_[0-9A-Za-z]{38}")
KEYS = st.text(ALPHABET, min_size=RANDOM_CHARACTERS, max_size=RANDOM_CHARACTERS).map(key_of)


@given(KEYS)
def test_a_key_is_well_formed_and_a_scanner_finds_it(key: str) -> None:
    assert is_well_formed(key)
    assert SCANNER.findall(f'token = "{key}";') == [key]


def test_keys_differ() -> None:
    keys = {new_key() for _ in range(1_000)}
    assert len(keys) == 1_000
    assert all(is_well_formed(key) for key in keys)


@given(KEYS, st.data())
def test_a_mistyped_character_is_noticed(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(key) - 1))
    character = data.draw(st.characters(exclude_characters=key[position], exclude_categories=["Cs"]))
    assert not is_well_formed(key[:position] + character + key[position + 1 :])


@given(KEYS, st.data())
def test_two_characters_in_the_wrong_order_are_noticed(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(key) - 2))
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    assume(swapped != key)
    assert not is_well_formed(swapped)


@given(KEYS, st.text(max_size=3))
def test_what_is_cut_off_or_added_to_is_noticed(key: str, rest: str) -> None:
    assert all(not is_well_formed(key[:length]) for length in range(len(key)))
    assert not rest or not is_well_formed(key + rest)
    assert not rest or not is_well_formed(rest + key)


@given(st.text() | st.text(ALPHABET, min_size=38, max_size=38).map(PREFIX.__add__))
def test_no_text_upsets_the_parser(text: str) -> None:
    assert is_well_formed(text) in {True, False}


@given(KEYS, KEYS)
def test_a_digest_tells_keys_and_peppers_apart_and_no_key_away(key: str, other: str) -> None:
    assume(key != other)
    assert digest_of(key, "pepper") == digest_of(key, "pepper")
    assert len({digest_of(key, "pepper"), digest_of(other, "pepper"), digest_of(key, "salt")}) == 3
    assert key[SHOWN_CHARACTERS:] not in digest_of(key, "pepper")


@given(st.lists(st.text(max_size=5) | KEYS))
def test_no_key_is_left_in_a_masked_text(parts: list[str]) -> None:
    shown = masked(" ".join(parts))
    for part in parts:
        assert not is_well_formed(part) or part not in shown
        assert is_well_formed(part) or part in shown


@pytest.mark.parametrize(
    ("random", "check"), [("0" * 32, "2wjyrI"), ("z" * 32, "4W8LJS"), ("condenser" * 3 + "AZaz0", "2xWGpd")]
)
def test_the_check_stays_what_it_was(random: str, check: str) -> None:
    """Keys that were handed out must stay good."""
    assert is_well_formed(f"condenser_{random}{check}")
