"""What a key allows.

``read`` sees everything of its tenant, ``write`` submits and changes and therefore sees too, ``admin`` makes
and revokes keys. Admin alone allows neither of the others: a key that only rotates keys need not see jobs.
"""

from collections.abc import Iterable, Mapping

from store.models import SCOPES, Scope

INCLUDED: Mapping[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"admin"}),
}


def allowed_by(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Everything that these scopes allow together."""
    return frozenset[Scope]().union(*(INCLUDED[scope] for scope in scopes))


def missing_to_give(held: Iterable[Scope], wanted: Iterable[Scope]) -> list[Scope]:
    """List what somebody with some scopes would have to have besides, to give others away."""
    missing = allowed_by(wanted) - allowed_by(held)
    return [scope for scope in SCOPES if scope in missing]
