"""``condenser keys create``, ``list`` and ``revoke``: who may use the service."""

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from client.address import address_of
from client.commands.jobs import AsJson
from client.examples import example
from client.models import KeyState
from client.output import tell, write_json, write_line, write_table

KEY = "019ab2c4-90aa-7c07-9a41-6f0e2b8d1c35"

_keys = typer.Typer(
    help="Make, list and revoke API keys. The first key of a tenant is made by an operator.",
    no_args_is_help=True,
)


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.add_typer(_keys, name="keys")


def _number(value: float | None) -> float | None:
    if value is not None and math.isnan(value):  # which lies within any bounds, as they are compared
        raise typer.BadParameter("nan is no number of days")
    return value


@_keys.command(epilog=example("condenser keys create 'nightly builds' --scope write --expires-in-days 90"))
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it allows: read (the default), write, admin; may be given several times."),
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option(min=0, max=36_500, callback=_number, help="It is refused from then on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it for the only time."""
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    with address_of(context).connect() as condenser:
        created = condenser.keys.create(name, scope or ["read"], expires_at=expires_at)
    if as_json:
        write_json(created.model_dump(mode="json"))
        return
    write_line(created.key)
    tell("keep it: it is stored nowhere and will not be shown again")


@_keys.command("list", epilog=example("condenser keys list"))
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys of the tenant, revoked ones too, the newest first."""
    with address_of(context).connect() as condenser:
        keys = condenser.keys.list()
    if as_json:
        write_json([key.model_dump(mode="json") for key in keys])
        return
    columns = ["id", "key", "name", "scopes", "state", "last used"]
    write_table(columns, [_row(key, datetime.now(UTC)) for key in keys])


@_keys.command(epilog=example(f"condenser keys revoke {KEY}"))
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good."""
    with address_of(context).connect() as condenser:
        condenser.keys.revoke(key_id)
    if as_json:
        write_json({"id": key_id, "revoked": True})
        return
    tell("revoked")


def _row(key: KeyState, now: datetime) -> list[str]:
    state = "good"
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None:
        state = "expired" if key.expires_at <= now else f"until {key.expires_at.astimezone():%Y-%m-%d}"
    used = f"{key.last_used_at.astimezone():%Y-%m-%d %H:%M}" if key.last_used_at else "never"
    return [key.id, f"{key.shown}…", key.name, ",".join(key.scopes), state, used]
