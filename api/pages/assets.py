"""Scripts, styles and pictures of the pages, under names that change with their content.

A browser keeps each for a year and asks again only for a name that it has not seen. All are read once, and
held compressed.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from store.errors import NotFoundError

FOLDER = Path(__file__).with_name("static")
PREFIX = "/ui/static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DIGEST_CHARACTERS = 12

router = APIRouter()


@dataclass(frozen=True)
class Asset:
    """One file as it is served."""

    name: str
    media_type: str
    content: bytes
    compressed: bytes

    @classmethod
    def read(cls, path: Path) -> "Asset":
        """Read a file and name it after its content."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS]
        name = f"{path.stem}.{digest}{path.suffix}"
        return cls(name, MEDIA_TYPES[path.suffix], content, gzip.compress(content, mtime=0))


@cache
def _assets() -> dict[str, Asset]:
    """Return the assets by the names of their files."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES)
    return {path.name: Asset.read(path) for path in files}


def asset_path(file: str) -> str:
    """Return the path under which a file is served at present."""
    return f"{PREFIX}/{_assets()[file].name}"


@router.get(PREFIX + "/{name}", include_in_schema=False)
async def read_asset(request: Request, name: str) -> Response:
    """Serve an asset by the name that it has at present."""
    asset = next((asset for asset in _assets().values() if asset.name == name), None)
    if asset is None:
        raise NotFoundError("There is no such asset. Load the page again.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(asset.content, media_type=asset.media_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(asset.compressed, media_type=asset.media_type, headers=headers)
