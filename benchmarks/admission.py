"""What a service that a benchmark starts needs to let the benchmark in."""

from collections.abc import Mapping

from store.api_keys import create_key
from store.database import create_engine, server_now, transaction
from store.settings import Settings

VARIABLES = {
    "API_KEY_PEPPER": "a pepper that only benchmarks are made with",
    "RATE_LIMIT_PER_MINUTE": "1000000000",
}
"""Settings of a service that is under attack by one key."""


def make_api_key(environment: Mapping[str, str]) -> str:
    """Make a key of the tenant ``default`` that may do everything.

    Parameters
    ----------
    environment
        The service's settings; its database is migrated.
    """
    settings = Settings.model_validate({name.lower(): value for name, value in environment.items()})
    engine = create_engine(settings)
    try:
        with transaction(engine) as session:
            now, pepper = server_now(session), settings.required_pepper()
            return create_key(
                session, name="benchmark", scopes=["write", "admin"], pepper=pepper, now=now
            ).key
    finally:
        engine.dispose()
