"""``python -m api``: serve the API, set up by environment variables, until a signal ends it."""

import argparse

import uvicorn

from api.serving import SERVING_OPTIONS


def main() -> None:
    """Serve at the address that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m api", description="Serve the API; docs/operations.md has its environment variables."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s; 0.0.0.0 is all)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    options = parser.parse_args()
    uvicorn.run(
        "api.app:create_app_from_environment",
        factory=True,
        host=options.host,
        port=options.port,
        **SERVING_OPTIONS,
    )


if __name__ == "__main__":
    main()
