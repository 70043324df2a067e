"""The shapes of keys, in requests and answers."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from store.models import Scope

KEY_EXAMPLE: dict[str, Any] = {
    "id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
    "name": "nightly builds",
    "shown": "condenser_4fK2mQ",
    "scopes": ["read", "write"],
    "created_by": None,
    "created_at": "2026-03-02T10:15:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-03-02T10:18:00Z",
}


class NewKey(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "nightly builds", "scopes": ["write"]}]}
    )

    name: Annotated[
        str,
        Field(
            min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="What the key is for."
        ),
    ]
    scopes: set[Scope] = Field(
        min_length=1,
        description="`read` sees all of the tenant, `write` also submits and changes, `admin` makes and "
        "revokes keys and nothing else. No more than the key that asks has itself.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None,
        description="The key is refused from then on, at most a hundred years from now; never by default.",
    )


class Key(BaseModel):
    """A key, without the key itself."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [KEY_EXAMPLE]})

    id: str
    name: str
    shown: str = Field(description="How the key begins.")
    scopes: list[Scope]
    created_by: str | None = Field(description="Id of the key that made it; null if an operator did.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class CreatedKey(Key):
    """A key that was just made."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY_EXAMPLE | {"key": "condenser_4fK2mQ…"}]})

    key: str = Field(description="The key itself. It is stored nowhere and never shown again.")
