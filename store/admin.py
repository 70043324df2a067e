"""The operator's own command, ``python -m store.admin``: tenants, their quotas, and the first key of each.

It speaks to the database directly and therefore needs no key: whoever may read the database's password and
the pepper is trusted with all. Everything else about keys goes over HTTP (``condenser keys``).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import timedelta

from pydantic import ValidationError

from store.api_keys import FARTHEST_EXPIRY, create_key
from store.database import Engine, create_engine, server_now, transaction
from store.errors import CondenserError
from store.models import DEFAULT_TENANT_NAME, SCOPES, Scope
from store.quotas import Quotas
from store.settings import Settings
from store.tenants import ensure_tenant, list_tenants, set_quotas

UNCHANGED = object()
EVERYTHING: tuple[Scope, ...] = ("write", "admin")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings()
        engine = create_engine(settings)
        try:
            options.run(options, engine, settings)
        finally:
            engine.dispose()
    except ValidationError as error:
        # Its text would repeat the values of the environment.
        fields = ", ".join(str(entry["loc"][0]).upper() for entry in error.errors())
        return _refuse(f"these settings are missing or cannot be used: {fields}")
    except CondenserError as error:
        return _refuse(error.detail)
    return 0


def _refuse(words: str) -> int:
    sys.stderr.write(f"store.admin: {words}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m store.admin", description="Tenants and their first keys."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser(
        "create-key", help="make a key, and its tenant if there is none; the key is shown once"
    )
    create.add_argument("--tenant", default=DEFAULT_TENANT_NAME, help="whose key it is (%(default)s)")
    create.add_argument("--name", default="made by the operator", help="what it is for (%(default)s)")
    create.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        dest="scopes",
        help="what it allows; may be given several times (write and admin, which is everything)",
    )
    create.add_argument("--expires-in-days", type=_days, metavar="DAYS", help="(never)")
    create.set_defaults(run=_create_key)
    shown = commands.add_parser("list-tenants", help="show every tenant with its quotas and what it stores")
    shown.set_defaults(run=_list_tenants)
    change = commands.add_parser("set-quotas", help="give a tenant limits of its own")
    change.add_argument("tenant", help="which")
    for quota in fields(Quotas):
        option = f"--{quota.name.replace('_', '-')}"
        change.add_argument(
            option, type=_limit, default=UNCHANGED, metavar="N", help="a number, or default for the settings'"
        )
    change.set_defaults(run=_set_quotas)
    return parser


def _days(text: str) -> timedelta:
    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days <= FARTHEST_EXPIRY.days:
        raise argparse.ArgumentTypeError(f"{text} is no number of days up to {FARTHEST_EXPIRY.days}")
    return timedelta(days=days)


def _limit(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor default")
    return int(text)


def _list_tenants(options: argparse.Namespace, engine: Engine, settings: Settings) -> None:
    defaults = Quotas.by_default(settings)
    with transaction(engine) as session:
        for tenant in list_tenants(session):
            limits = [
                f"{name}={'unlimited' if limit is None else limit}"
                for name, limit in asdict(defaults.of(tenant)).items()
            ]
            sys.stdout.write(f"{tenant.name}\tstores {tenant.bytes_stored} bytes\t{' '.join(limits)}\n")


def _set_quotas(options: argparse.Namespace, engine: Engine, settings: Settings) -> None:
    given = {quota.name: getattr(options, quota.name) for quota in fields(Quotas)}
    changes = {name: limit for name, limit in given.items() if limit is not UNCHANGED}
    with transaction(engine) as session:
        set_quotas(session, options.tenant, changes)


def _create_key(options: argparse.Namespace, engine: Engine, settings: Settings) -> None:
    lifetime: timedelta | None = options.expires_in_days
    with transaction(engine) as session:
        known = {tenant.name for tenant in list_tenants(session)}
        tenant_id = ensure_tenant(session, options.tenant, now=server_now(session))
    if options.tenant not in known:
        sys.stderr.write(f"tenant {options.tenant} was made\n")
    with transaction(engine, tenant_id=tenant_id) as session:
        now = server_now(session)
        created = create_key(
            session,
            name=options.name,
            scopes=options.scopes or EVERYTHING,
            pepper=settings.required_pepper(),
            now=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
    sys.stdout.write(f"{created.key}\n")


if __name__ == "__main__":
    sys.exit(main())
