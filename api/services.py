"""What requests share: settings, the connection pool, the object store and the watch over jobs.

One instance lives as long as the application. Handlers get it as a dependency only where no tenant's data is
concerned; `api.tenant_services` is what they get of it otherwise.
"""

from collections.abc import Collection, Mapping
from typing import Annotated

from fastapi import Depends, Request

from api.captions.slots import UploadSlots
from api.jobs.watch import JobWatch
from api.key_checks import KeyChecks
from api.monitoring import ApiMetrics
from api.rate_limits import RateLimits
from api.server_threads import ServerThreads
from store.database import create_engine, transaction
from store.objects import ObjectStore, Patience
from store.quotas import Quotas
from store.remote_objects import RemoteObjects
from store.settings import Settings
from store.versions import latest_versions
from store.webhook_secrets import SecretBox

OBJECT_STORE_THREADS = 20
BROKER_THREADS = 4
SOMEBODY_WAITS = Patience(attempts=2, read_seconds=20)


class Services:
    """The parts of the service that outlive a request.

    Parameters
    ----------
    settings
        Where the servers are. Connections are made on first use.
    metrics
        The application's metrics, which also watch the connections and the jobs.
    """

    def __init__(self, settings: Settings, metrics: ApiMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.engine = create_engine(settings)
        self.objects = ObjectStore(settings, SOMEBODY_WAITS)
        self.remote_objects = RemoteObjects(settings, SOMEBODY_WAITS)
        self.object_store_threads = ServerThreads("The object store", OBJECT_STORE_THREADS)
        self.broker_threads = ServerThreads("The broker", BROKER_THREADS)
        self.keys = KeyChecks(self.engine, settings)
        self.rate_limits = RateLimits(settings)
        self.upload_slots = UploadSlots()
        metrics.watch(self.engine, lease_seconds=settings.lease_seconds, quotas=Quotas.by_default(settings))
        self.secret_box = SecretBox(settings)
        self.watch = JobWatch(self._read_versions, settings.watch_seconds)

    def _read_versions(self, ids: Collection[str]) -> Mapping[str, int]:
        with transaction(self.engine) as session:
            return latest_versions(session, ids)

    def close(self) -> None:
        """Close the pools of connections."""
        self.engine.dispose()
        self.rate_limits.close()


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDependency = Annotated[Services, Depends(_services)]
