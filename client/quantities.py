"""Quantities as people read them."""


def duration(seconds: float) -> str:
    """Write a length of time as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def millions(count: float) -> str:
    """Write a number of parameters in millions."""
    return f"{count / 1e6:.1f}M"


def megabytes(count: float) -> str:
    """Write a number of bytes in megabytes."""
    return f"{count / 1e6:,.1f} MB"
