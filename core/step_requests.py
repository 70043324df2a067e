"""What somebody asks of a training while it goes on: a checkpoint, or pictures, at the next step.

A file of that name in the job's folder of requests asks. It is taken away as the work begins, so that another
one can be told from it. Nothing of the training depends on what is done between its steps: all randomness of
a step follows from the seed and the samples seen.
"""

from pathlib import Path
from typing import Literal

FOLDER = "requests"

StepRequest = Literal["checkpoint", "sample"]


class StepRequests:
    """The requests in one folder.

    Parameters
    ----------
    folder
        Where they are looked for; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, request: StepRequest) -> bool:
        """Take a request away, and tell whether there was one."""
        try:
            (self._folder / request).unlink()
        except FileNotFoundError:
            return False
        return True
