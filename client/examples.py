"""The examples at the end of every command's help."""

JOB = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
"""An id to show."""


def example(*commands: str) -> str:
    """Write commands as the help shows them, a line each."""
    return "\n\n".join(("Example:", *commands))
