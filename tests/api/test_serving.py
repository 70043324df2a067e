"""The options that every process of the API is served with."""

import httpx

from api.serving import SERVING_OPTIONS

PROXY_IDLE_SECONDS = 60  # nginx's for its upstreams, and what load balancers of the large clouds begin with


def test_idle_connections_outlive_those_of_clients_and_proxies() -> None:
    """Else one is closed under a request on its way, which then fails without an answer."""
    kept = SERVING_OPTIONS["timeout_keep_alive"]
    assert kept > PROXY_IDLE_SECONDS
    assert kept > (httpx.Limits().keepalive_expiry or 0)
