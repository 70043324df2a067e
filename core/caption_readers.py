"""Reading captions from files, row by row: text, CSV, TSV, JSON Lines, Parquet; plain, gzip or zstd.

Nothing is read further ahead than a few thousand rows. A row that cannot be read ends the reading with an
error that names it; what is wrong with a caption itself is `core.caption_cleaning`'s to judge.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.caption_formats import compression_of, format_to_read
from core.errors import BadCaptionsError
from core.spec import FileCaptions

USUAL_COLUMNS = ("caption", "text", "prompt")
PARQUET_ROWS = 4_096
MAX_LINE_BYTES = 2**24  # a few bytes of a compressed file may be a line that no memory holds


def read_file(source: FileCaptions) -> Iterator[str]:
    """Yield the captions of a file in its order, empty rows as empty captions.

    Raises
    ------
    BadCaptionsError
        If the file is of no known format or cannot be read; it names the file and the row, if there is one.
    """
    path = Path(source.path)
    rows = READERS[format_to_read(path.name, source.format)](path, source.column)
    try:
        yield from islice(rows, source.limit)
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None)
        problem = os.strerror(number) if number else str(error)
        raise BadCaptionsError(
            f"{path.name} cannot be read: {problem}", "check the path and that the file is whole"
        ) from error


def _read_text(path: Path, column: str | None) -> Iterator[str]:
    yield from _lines(path)


def _read_csv(path: Path, column: str | None, **dialect: Any) -> Iterator[str]:
    reader = csv.reader(_lines(path), strict=True, **dialect)
    rows = _rows_of_long_cells(reader)
    try:
        header = next(rows, [])
        if column is None and len(header) == 1 and header[0].lower() not in USUAL_COLUMNS:
            raise BadCaptionsError(
                f"{path.name}: is the first line, {header[0][:60]!r}, the column's name or a caption?",
                "give captions.column as that name; if it is a caption, set captions.format to text",
            )
        place = header.index(_choose_column(path, header, column))
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _bad_row(path, reader.line_num, f"{len(row)} cells under {len(header)} columns")
            yield row[place]
    except csv.Error as error:
        raise _bad_row(path, reader.line_num, str(error)) from error


def _read_tsv(path: Path, column: str | None) -> Iterator[str]:
    """Read cells as they are: the format has no quoting, so that every line is a row."""
    yield from _read_csv(path, column, delimiter="\t", quoting=csv.QUOTE_NONE)


def _rows_of_long_cells(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield rows whose cells may be as long as a line, where csv's own limit is 131,072 characters.

    That limit is one for the whole process, and therefore another only while a row is read.
    """
    while True:
        usual = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(usual)
        if row is None:
            return
        yield row


def _read_jsonl(path: Path, column: str | None) -> Iterator[str]:
    """Read a string or an object on each line; null is an empty caption."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad_row(path, number, f"not JSON: {error}") from error
        if isinstance(row, dict):
            column = column or _choose_column(path, list(row), None)
            if column not in row:
                raise _bad_row(path, number, f"no {column!r}, only {', '.join(row) or 'an empty object'}")
            row = row[column]
        if not isinstance(row, str | None):
            raise _bad_row(path, number, f"the caption is {json.dumps(row)[:60]}, not a text")
        yield row or ""


def _read_parquet(path: Path, column: str | None) -> Iterator[str]:
    with pq.ParquetFile(path) as table:
        column = _choose_column(path, table.schema_arrow.names, column)
        column_type = table.schema_arrow.field(column).type
        if not _is_text(column_type):
            raise BadCaptionsError(
                f"{path.name}: column {column} holds {column_type}, not text", "name another column"
            )
        batches = table.iter_batches(PARQUET_ROWS, columns=[column])
        for number, text in enumerate((text for batch in batches for text in batch.column(0)), start=1):
            try:
                yield text.as_py() or ""
            except UnicodeDecodeError as error:
                raise _bad_row(path, number, "not UTF-8 text", unit="row") from error


def _is_text(column_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    return column_type in (pa.string(), pa.large_string(), pa.string_view())


READERS: dict[str, Callable[[Path, str | None], Iterator[str]]] = {
    "text": _read_text,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, which may be compressed, without a byte order mark."""
    with _open(path) as lines:
        for number, line in enumerate(iter(partial(lines.readline, MAX_LINE_BYTES), b""), start=1):
            if len(line) == MAX_LINE_BYTES:
                raise _bad_row(path, number, f"longer than {MAX_LINE_BYTES:,} bytes")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _bad_row(path, number, "not UTF-8 text") from error
            yield text.removeprefix("\ufeff") if number == 1 else text


def _open(path: Path) -> Any:
    """Open a file as a binary stream, its compression, if any, undone."""
    compression = compression_of(path.name)
    return io.BufferedReader(pa.input_stream(str(path), compression)) if compression else path.open("rb")


def _choose_column(path: Path, columns: Sequence[str], wanted: str | None) -> str:
    """Return the wanted column; where none is named, the only one or the one with a usual name."""
    if wanted in columns:
        return wanted
    usual = [column for column in columns if len(columns) == 1 or column.lower() in USUAL_COLUMNS]
    if wanted is None and len(usual) == 1:
        return usual[0]
    raise BadCaptionsError(
        f"{path.name} has no column {wanted!r}"
        if wanted
        else f"{path.name}: which column holds the captions?",
        f"give captions.column as one of: {', '.join(columns) or 'none, for there are no columns'}",
    )


def _bad_row(path: Path, number: int, problem: str, unit: str = "line") -> BadCaptionsError:
    return BadCaptionsError(f"{path.name}, {unit} {number}: {problem}", f"mend or remove that {unit}")
