"""Captions from a data set of the Hugging Face Hub, streamed by the ``datasets`` library.

The library is an optional part of the installation, and code that comes with a data set never runs.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from core.errors import BadCaptionsError
from core.spec import HubCaptions


def read_hub(source: HubCaptions) -> Iterator[str]:
    """Yield one column of a data set, rows without a value as empty captions.

    Raises
    ------
    BadCaptionsError
        If the name has no owner, the library is not installed, the data set cannot be fetched, a value is no
        text, or there is a folder of the data set's name, which the library would prefer.
    """
    source.check_owner()
    if find_spec("datasets") is None:
        raise BadCaptionsError(
            f"{source.dataset} cannot be fetched: the datasets library is not installed",
            'pip install "condenser[hub]", or give the captions as a file',
        )
    if Path(source.dataset).exists():
        raise BadCaptionsError(
            f"{source.dataset} is a folder here, which would be read in place of the data set",
            "run the worker from another folder",
        )
    try:
        yield from _stream(source)
    except BadCaptionsError:
        raise
    # The library lets through whatever its readers of many formats raise.
    except Exception as error:
        raise BadCaptionsError(
            f"{source.dataset} cannot be read: {error}",
            "check its name, config, split, revision and the network",
        ) from error


def _stream(source: HubCaptions) -> Iterator[str]:
    from datasets import load_dataset  # optional, and seconds to import

    rows = load_dataset(
        source.dataset, source.config, split=source.split, revision=source.revision, streaming=True
    )
    columns = rows.column_names
    if columns is not None and source.column not in columns:
        raise BadCaptionsError(
            f"{source.dataset} has no column {source.column!r}", f"its columns: {', '.join(columns)}"
        )
    for number, row in enumerate(islice(rows, source.limit), start=1):
        text = row.get(source.column)
        if not isinstance(text, str | None):
            raise BadCaptionsError(
                f"{source.dataset}, row {number}: {source.column} holds {type(text).__name__}, not text",
                "name a column of text",
            )
        yield text or ""
