"""How the API is to be served over HTTP: uvicorn's options that no process of it may go without."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.http_protocol import BoundedHttpToolsProtocol

SERVING_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "http": BoundedHttpToolsProtocol,
        "server_header": False,
        # Streams and long polls end at once (`api.shutdown`); this is for what is being uploaded.
        "timeout_graceful_shutdown": 20,
        # Longer than clients and proxies keep idle connections (5 s and 60 s mostly), so that none is closed
        # under a request that is on its way.
        "timeout_keep_alive": 75,
        # A scrape of the metrics must reach a known process: start several, each on a port of its own.
        "workers": 1,
    }
)
