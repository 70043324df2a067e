"""What can go wrong with the embedded stack, each with a message for the person at the terminal."""


class StackError(Exception):
    """Any failure of the embedded stack."""


class StackAlreadyRunningError(StackError):
    """The data folder's servers are running and belong to somebody else."""


class StackBusyError(StackError):
    """Another process is starting or stopping the servers of this data folder."""


class StackStartError(StackError):
    """A server did not come up; the message ends with the last lines of its log."""
