"""How the ranks of a job ended: each leaves word in the job's folder, for the agent that launched them.

An exit status cannot say it: torchrun takes any but nought for a crash, starts all ranks again, and itself
ends with 1.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from core.errors import CoreError
from core.files import write_json

FOLDER_VARIABLE = "RANK_ENDS"
AGENT_VARIABLE = "RANK_AGENT"
"""Variables by which a rank knows where to leave word, and its agent's process id."""


@dataclass(frozen=True)
class Failure:
    """Why a job cannot succeed, as its ``failed`` event says it."""

    reason: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: CoreError) -> Self:
        """Return what the event says of an error."""
        return cls(error.reason, error.message, error.hint)


@dataclass(frozen=True)
class RankEnds:
    """The word that the ranks of one launch have left.

    Attributes
    ----------
    folder
        A file for each rank.
    """

    folder: Path

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str]) -> Self | None:
        """Return where this process leaves word; None where no agent has launched it."""
        folder = environ.get(FOLDER_VARIABLE)
        return None if folder is None else cls(Path(folder))

    def leave(self, rank: int, status: int, failure: Failure | None = None) -> None:
        """Leave word that a rank ended with the status of a process alone, and why it failed."""
        write_json(self._file(rank), {"status": status, "failure": failure and asdict(failure)})

    def forget(self, rank: int) -> None:
        """Take back what a rank has left when it ran before."""
        self._file(rank).unlink(missing_ok=True)

    def status(self) -> int | None:
        """Return the status that the first rank left: the one that does all a job does."""
        return json.loads(self._file(0).read_text())["status"] if self._file(0).exists() else None

    def failure(self) -> Failure | None:
        """Return why the job cannot succeed, if a rank has found that; of several the first one's word."""
        for file in sorted(self.folder.glob("rank-*.json")):
            if (failure := json.loads(file.read_text())["failure"]) is not None:
                return Failure(**failure)
        return None

    def take_over_telling(self) -> bool:
        """Tell one agent, the first to ask, that it is the one that tells the job's failure."""
        try:
            os.close(os.open(self.folder / "told", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.json"
