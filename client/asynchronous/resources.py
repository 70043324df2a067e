"""Waiting for what goes on by itself: asked again and again, answered when it has changed."""

import time
from collections.abc import Callable
from typing import ClassVar, Self

import httpx

from client.patience import PATIENCE_SECONDS, patience_within
from client.resources import Resource, State
from client.transport import ANSWER_SECONDS, Transport, model_of, tell

LONG_POLL_SECONDS = 30.0


class AsyncResource(Resource[State]):
    """A resource that can be asked for and waited for."""

    collection: ClassVar[str]

    def __init__(self, transport: Transport, state: State) -> None:
        self._transport = transport
        self._state = state

    @property
    def state(self) -> State:
        """All that was known of it when the service was last asked."""
        return self._state

    async def refresh(self) -> Self:
        """Ask the service for the present state."""
        await self._refresh(PATIENCE_SECONDS)
        return self

    async def _refresh(self, patience_seconds: float) -> None:
        self._state = await self._transport.read(
            type(self._state), self._path(), patience_seconds=patience_seconds
        )

    async def delete(self) -> None:
        """Delete it, with its files."""
        await self._transport.request("DELETE", self._path())

    async def _until_ended(
        self, on_change: Callable[[Self], object] | None, timeout_seconds: float | None
    ) -> bool:
        """Return whether it has ended in time; tell of it at once and after every change."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        told: int | None = None
        while True:
            while told != self.state.version:  # which may change while it is told
                told = self.state.version
                await tell(on_change, self)
            if self.state.has_ended:
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            wait_seconds = LONG_POLL_SECONDS if left is None else min(left, LONG_POLL_SECONDS)
            await self._await_change(wait_seconds, patience_within(left))

    async def _await_change(self, wait_seconds: float, patience_seconds: float) -> None:
        """Ask once, and be answered when it has changed or the time is over."""
        answer = await self._transport.request(
            "GET",
            self._path(),
            parameters={"wait": round(wait_seconds, 3)},
            headers={"If-None-Match": f'W/"{self.state.version}"'},
            answer_seconds=wait_seconds + ANSWER_SECONDS,
            patience_seconds=patience_seconds,
        )
        if answer.status_code != httpx.codes.NOT_MODIFIED:
            self._state = model_of(type(self._state), answer)

    def _path(self, part: str = "") -> str:
        return f"/{self.collection}/{self.state.id}" + (f"/{part}" if part else "")
