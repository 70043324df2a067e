"""What requests share: settings, the connection pool, the object store and the watch over jobs.

One instance lives as long as the application and is handed to handlers as a dependency.
"""

from collections.abc import Collection, Mapping
from typing import Annotated

from fastapi import Depends, Request

from api.jobs.watch import JobWatch
from store.database import create_engine, transaction
from store.objects import ObjectStore
from store.settings import Settings
from store.versions import latest_sequences
from store.webhook_secrets import SecretBox


class Services:
    """The parts of the service that outlive a request.

    Parameters
    ----------
    settings
        Where the servers are. Connections are made on first use.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = create_engine(settings)
        self.objects = ObjectStore(settings)
        self.secret_box = SecretBox(settings)
        self.watch = JobWatch(self._read_versions, settings.watch_seconds)

    def _read_versions(self, job_ids: Collection[str]) -> Mapping[str, int]:
        with transaction(self.engine) as session:
            return latest_sequences(session, job_ids)

    def close(self) -> None:
        """Close the pool of connections."""
        self.engine.dispose()


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDependency = Annotated[Services, Depends(_services)]
