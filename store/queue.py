"""The bell of the job queue.

A Celery message is a hint that a job waits; Postgres alone knows whether it does. So a message that is lost,
doubled or late does no harm, and a broker that is down delays jobs but loses none. Nothing here is imported
from the worker: the task is sent by its name.
"""

import ssl
from functools import lru_cache

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from store.errors import UnavailableError
from store.settings import Settings

RUN_JOB_TASK = "condenser.run_job"
DRAW_TASK = "condenser.draw"
_PUBLISH_RETRIES = {"max_retries": 2, "interval_start": 0.0, "interval_step": 0.2, "interval_max": 0.5}


def make_celery(redis_url: str) -> Celery:
    """Make a Celery app that talks to the broker and keeps no results."""
    app = Celery("condenser", broker=redis_url, backend=None, set_as_current=False)
    app.conf.update(
        # Kombu trusts any server unless it is told not to; what the address says of it goes before this.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if redis_url.startswith("rediss://") else False,
        broker_connection_timeout=3,
        broker_transport_options={"socket_connect_timeout": 3, "socket_timeout": 10},
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
    )
    return app


def send_job_hint(settings: Settings, job_id: str, queue: str) -> None:
    """Tell the workers of a queue that a job waits; `UnavailableError` when the broker is down."""
    _send(settings, RUN_JOB_TASK, [job_id], queue)


def send_generation_hint(settings: Settings) -> None:
    """Tell the interactive workers that a generation waits; `UnavailableError` when the broker is down."""
    _send(settings, DRAW_TASK, [], settings.interactive_queue)


def _send(settings: Settings, task: str, arguments: list[str], queue: str) -> None:
    try:
        _producer(settings.redis_url).send_task(
            task, args=arguments, queue=queue, retry=True, retry_policy=_PUBLISH_RETRIES
        )
    except (OperationalError, RedisError, OSError) as error:
        raise UnavailableError(f"The broker does not answer: {error}") from error


def count_hints(settings: Settings, queue: str) -> int:
    """Count the messages that wait in a queue; `UnavailableError` when the broker is down."""
    try:
        with _connect(settings) as client:
            return int(client.llen(queue))
    except RedisError as error:
        raise UnavailableError(f"The broker does not answer: {error}") from error


def ping(settings: Settings) -> None:
    """Raise `UnavailableError` unless the broker answers."""
    try:
        with _connect(settings) as client:
            client.ping()
    except RedisError as error:
        raise UnavailableError(f"The broker does not answer: {error}") from error


def _connect(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(settings.redis_url, socket_connect_timeout=3, socket_timeout=10)


@lru_cache(maxsize=8)
def _producer(redis_url: str) -> Celery:
    return make_celery(redis_url)
