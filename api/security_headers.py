"""Headers by which browsers treat our answers with care, on every answer.

Answers for programs may load nothing at all. Pages may load scripts, styles and pictures from this service
alone, and none that stands in the page itself.
"""

from starlette.datastructures import MutableHeaders

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SHUT = "base-uri 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    f"connect-src 'self'; form-action 'self'; {_SHUT}"
)
OTHER_POLICY = f"default-src 'none'; form-action 'none'; {_SHUT}"


def add_security_headers(headers: MutableHeaders) -> None:
    """Add what an answer has not set itself."""
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else OTHER_POLICY)
