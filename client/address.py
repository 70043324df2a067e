"""How the command finds the service: what it was told, or the embedded stack of a data folder."""

from pathlib import Path

import typer

from client.condenser import Condenser
from client.errors import ClientError

DEFAULT_DATA_DIR = Path(".condenser")


class NoServiceError(ClientError):
    """Nobody said where the service is, and none runs here."""


class Address:
    """Where the service may be, as the command line and the environment have it.

    Parameters
    ----------
    url
        Given outright.
    data_dir
        Folder of an embedded stack, asked when no URL is given.
    """

    def __init__(self, url: str | None, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._url = url

    def connect(self) -> Condenser:
        """Make a client of the service."""
        url = self._url or _embedded_api(self.data_dir)
        if url is None:
            raise NoServiceError(
                f"no service is known: start one with `condenser up` (none runs in {self.data_dir}), "
                "or name one with --url or CONDENSER_URL"
            )
        return Condenser(url)


def _embedded_api(data_dir: Path) -> str | None:
    try:
        from embedded.state import running_stack
    except ModuleNotFoundError:  # the client was installed without the embedded stack
        return None
    stack = running_stack(data_dir)
    return stack.api_url if stack is not None else None


def address_of(context: typer.Context) -> Address:
    """Return what the command's general options said."""
    address = context.obj
    assert isinstance(address, Address)  # noqa: S101 (the command's entrance sets it)
    return address
