"""Free loopback ports, kept from one start to the next where they are still free.

Addresses that stay the same keep links and presigned URLs of the last run working. Ports are taken from below
the range that the kernel hands to outgoing connections, so that no client of ours can sit on one by accident.
"""

import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST_OUTGOING = 32_768
PORTS = range(20_000, FIRST_OUTGOING)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of the last run that are still winding down must not count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class PortBook:
    """The ports of one data folder, remembered in a file.

    Parameters
    ----------
    path
        The file; made when the first port is taken.
    among
        Which ports may be taken; a second port may lie above them, below `FIRST_OUTGOING`.
    """

    def __init__(self, path: Path, among: range = PORTS) -> None:
        self._path = path
        self._among = among
        self._taken: set[int] = set()

    def take(self, names: Sequence[str], offsets: Mapping[str, int] | None = None) -> dict[str, int]:
        """Give each name a free port, the one it had last time where that is possible.

        Parameters
        ----------
        names
            What the ports are for.
        offsets
            For a name, the distance of a second port that must be free as well.
        """
        offsets = offsets or {}
        remembered = self._load()
        chosen = {name: self._choose(remembered.get(name), offsets.get(name, 0)) for name in names}
        self._path.write_text(json.dumps(remembered | chosen, indent=2), encoding="utf-8")
        return chosen

    def forget(self, names: Sequence[str]) -> None:
        """Give up the ports of these names, so that the next `take` finds others."""
        remembered = {name: port for name, port in self._load().items() if name not in names}
        self._path.write_text(json.dumps(remembered, indent=2), encoding="utf-8")

    def _choose(self, remembered: int | None, offset: int) -> int:
        port = remembered if remembered is not None else self._random(offset)
        while not self._usable(port) or not self._usable(port + offset):
            port = self._random(offset)
        self._taken |= {port, port + offset}
        return port

    def _usable(self, port: int) -> bool:
        return port < FIRST_OUTGOING and port not in self._taken and is_free(port)

    def _random(self, offset: int) -> int:
        return secrets.choice(range(self._among.start, min(self._among.stop, FIRST_OUTGOING - offset)))

    def _load(self) -> dict[str, int]:
        try:
            loaded: dict[str, int] = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return loaded
