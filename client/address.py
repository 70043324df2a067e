"""How the command finds the service and its API key: what it was told, or the stack of a data folder.

The key of a data folder is sent to the stack of that folder and nowhere else.
"""

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
    api_key
        Given outright.
    data_dir
        Folder of an embedded stack, asked when no URL is given.
    """

    def __init__(self, url: str | None, api_key: str | None, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._url = url
        self._api_key = api_key

    def connect(self) -> Condenser:
        """Make a client of the service."""
        url, key = self.find()
        if url is None:
            raise NoServiceError(
                f"no service is known: start one with `condenser up` (none runs in {self.data_dir}), "
                "or name one with --url or CONDENSER_URL"
            )
        return Condenser(url, key)

    def find(self) -> tuple[str | None, str | None]:
        """Return where the service is, and the key to send it; None for what nobody knows."""
        if self._url is not None:
            return self._url, self._api_key
        url, key = _embedded_api(self.data_dir)
        return url, self._api_key or key


def _embedded_api(data_dir: Path) -> tuple[str | None, str | None]:
    """Find where the stack of a folder answers, and the key that lies there."""
    try:
        from embedded.first_key import first_key
        from embedded.state import running_stack
    except ModuleNotFoundError:  # the client was installed without the embedded stack
        return None, None
    stack = running_stack(data_dir)
    return (stack.api_url if stack is not None else None), first_key(data_dir)


def address_of(context: typer.Context) -> Address:
    """Return what the command's general options said."""
    address = context.obj
    assert isinstance(address, Address)  # noqa: S101 (the command's entrance sets it)
    return address
