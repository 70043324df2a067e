"""Tells waiting requests that a job, or a generation, has changed.

A long poll or a stream waits here as a coroutine: it holds no thread and no database connection. However many
wait, one query at a time asks for the versions of all the jobs they wait for. A job's version is the number
of its last event; whatever a client can see of a job changes together with it. Generations have versions of
their own, and their ids are no job's.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from starlette.concurrency import run_in_threadpool

from store.errors import UnavailableError

LOGGER = logging.getLogger(__name__)


class _Waiter:
    """One request that waits for a job to leave a version."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.changed = False
        self.woken = asyncio.Event()


class JobWatch:
    """Waits for changes of jobs on behalf of many requests.

    Parameters
    ----------
    read_versions
        Gives the versions of these jobs; called in the thread pool. A job that it leaves out has changed.
    interval_seconds
        Pause between two queries, and so the longest that a change stays unseen.
    """

    def __init__(
        self, read_versions: Callable[[Collection[str]], Mapping[str, int]], interval_seconds: float
    ) -> None:
        self.closed = False
        self._read_versions = read_versions
        self._interval_seconds = interval_seconds
        self._waiters: dict[str, set[_Waiter]] = {}

    async def run(self, closing: asyncio.Event) -> None:
        """Look for changes until the service closes, then wake everybody who waits."""
        while not closing.is_set():
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await closing.wait()
            except TimeoutError:
                await self._look()
        self.closed = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.woken.set()

    async def changed(self, job_id: str, version: int, *, timeout_seconds: float) -> bool:
        """Wait until a job has another version than this one.

        Returns
        -------
        bool
            False when the time is over or the service closes first.
        """
        if self.closed:
            return False
        waiter = _Waiter(version)
        self._waiters.setdefault(job_id, set()).add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter.woken.wait()
        except TimeoutError:
            return False
        finally:
            self._waiters[job_id].discard(waiter)
            if not self._waiters[job_id]:
                del self._waiters[job_id]
        return waiter.changed

    async def _look(self) -> None:
        # Who begins to wait during the query may know a newer version than it has read.
        asked = [(job_id, waiter) for job_id, waiters in self._waiters.items() for waiter in waiters]
        if not asked:
            return
        try:
            versions = await run_in_threadpool(self._read_versions, {job_id for job_id, _ in asked})
        except UnavailableError as error:
            LOGGER.warning("cannot look for changes of jobs: %s", error)
            return
        except Exception:
            # An error that we did not foresee must not end it: all that runs beside requests ends with it.
            LOGGER.exception("the look for changes of jobs failed")
            return
        for job_id, waiter in asked:
            if versions.get(job_id) != waiter.version:
                waiter.changed = True
                waiter.woken.set()
