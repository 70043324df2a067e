"""The scopes of keys as an order: what includes what, and what can be given away."""

from hypothesis import given
from hypothesis import strategies as st

from store.models import SCOPES, Scope
from store.scopes import allowed_by, missing_to_give

SETS = st.frozensets(st.sampled_from(SCOPES))


def test_what_each_scope_allows() -> None:
    assert allowed_by(["read"]) == {"read"}
    assert allowed_by(["write"]) == {"read", "write"}
    assert allowed_by(["admin"]) == {"admin"}
    assert allowed_by([]) == set()


@given(SETS, SETS)
def test_more_scopes_never_allow_less(few: frozenset[Scope], more: frozenset[Scope]) -> None:
    assert allowed_by(few) <= allowed_by(few | more)
    assert allowed_by(few | more) == allowed_by(few) | allowed_by(more)
    assert few <= allowed_by(few) == allowed_by(allowed_by(few))


@given(SETS, SETS)
def test_nobody_gives_away_what_they_do_not_have(held: frozenset[Scope], wanted: frozenset[Scope]) -> None:
    missing = missing_to_give(held, wanted)
    assert (missing == []) == (allowed_by(wanted) <= allowed_by(held))
    assert missing_to_give(held | set(missing), wanted) == []


@given(SETS, SETS, SETS)
def test_a_chain_of_makers_never_gains(
    first: frozenset[Scope], second: frozenset[Scope], third: frozenset[Scope]
) -> None:
    if not missing_to_give(first, second) and not missing_to_give(second, third):
        assert allowed_by(third) <= allowed_by(first)
