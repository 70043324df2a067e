"""How the client that blocks runs the one that does not.

The client's logic is written once, as coroutines in `client.asynchronous`. Over a `BlockingConnection` they
never wait for an event loop, for what they wait for has happened when it returns; so each runs from its
beginning to its end in one go, as a function does, with or without a loop around it.
"""

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a client that blocks, and return what it returns."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for an event loop: it belongs to an asynchronous client")


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """Yield what an asynchronous generator of a client that blocks yields; leaving early closes it."""

    async def following() -> T:
        return await anext(items)

    async def close() -> None:
        if hasattr(items, "aclose"):
            await items.aclose()

    try:
        while True:
            try:
                item = run(following())
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(close())
