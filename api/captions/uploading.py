"""A caption file from the request's body into the object store, piece by piece.

Never more than one piece of a file is in memory and none of it on disk; nothing is read from the client while
a piece is being sent on. The key is in the database before the first byte is stored, so that whatever breaks,
this process included, the sweeper finds what was left.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.tenant_services import TenantServices
from store import caption_files
from store.database import server_now
from store.errors import InvalidInputError, UnavailableError
from store.models import CaptionFile
from store.objects import StoredObject, StreamedUpload
from store.quotas import Quotas

LOGGER = logging.getLogger(__name__)

PIECE_BYTES = 8 * 2**20


async def receive_file(services: TenantServices, request: Request, name: str) -> tuple[CaptionFile, bool]:
    """Store the request's body as a caption file; whether it is a new one comes with it."""
    key = await run_sync(_begin, services)
    upload = services.objects.begin_upload(key)
    try:
        await _pass_on(services, request, upload)
        if not upload.size:
            raise InvalidInputError("The body is empty.", field="body")
        stored = await services.object_store_threads.run(upload.complete)
        return await run_sync(_finish, services, name, stored)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _give_up(services, upload)
        raise


async def _pass_on(services: TenantServices, request: Request, upload: StreamedUpload) -> None:
    piece = bytearray()
    async for block in _blocks(request, services.settings.upload_silence_seconds):
        piece += block
        if len(piece) >= PIECE_BYTES:
            await services.object_store_threads.run(upload.write, piece)
            piece.clear()
    if piece:
        await services.object_store_threads.run(upload.write, piece)


async def _blocks(request: Request, silence_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, and fail when it stops arriving."""
    blocks = request.stream()
    while True:
        try:
            async with asyncio.timeout(silence_seconds):
                block = await anext(blocks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"Nothing of the body arrived for {silence_seconds:g} s."
            raise HTTPException(408, detail, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "The body ended before its time.") from None
        yield block


def _begin(services: TenantServices) -> str:
    with services.transaction() as session:
        return caption_files.begin_upload(
            session,
            tenant_id=services.caller.tenant_id,
            now=server_now(session),
            quotas=Quotas.by_default(services.settings),
        )


def _finish(services: TenantServices, name: str, stored: StoredObject) -> tuple[CaptionFile, bool]:
    with services.transaction() as session:
        return caption_files.finish_upload(
            session,
            tenant_id=services.caller.tenant_id,
            name=name,
            stored=stored,
            now=server_now(session),
            quotas=Quotas.by_default(services.settings),
        )


async def _give_up(services: TenantServices, upload: StreamedUpload) -> None:
    """Remove what was stored; what cannot be reached now is removed by the sweeper."""
    for remove in (
        partial(run_sync, _let_sweep, services, upload),
        partial(services.object_store_threads.run, upload.abort),
    ):
        try:
            await remove()
        except UnavailableError as error:
            LOGGER.warning("the broken upload to %s is left to the sweeper: %s", upload.key, error.detail)


def _let_sweep(services: TenantServices, upload: StreamedUpload) -> None:
    with services.transaction() as session:
        caption_files.give_up_upload(session, upload.key, now=server_now(session))
