"""Reading captions from files, row by row: text, CSV, TSV, JSON Lines, Parquet; plain, gzip or zstd.

Nothing is read further ahead than a few thousand rows, fewer where they are long. A row that cannot be read
ends the reading with an error that names it; what is wrong with a caption itself is `core.caption_cleaning`'s
to judge.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.caption_formats import compression_of, format_to_read
from core.errors import BadCaptionsError
from core.spec import FileCaptions

USUAL_COLUMNS = ("caption", "text", "prompt")
PARQUET_ROWS = 4_096
MAX_ROW_BYTES = 2**24  # a few bytes of a compressed file may be a row that no memory holds
MAX_ROW_GROUP_BYTES = 2**30
"""Of a column of Parquet, in whatever encoding: a page is unpacked whole, a few kilobytes of the file may be
one, and nothing tells beforehand how much of the row group it is. Of rows of different lengths those read at
once may be nearly all, too."""
PARQUET_BUFFER_BYTES = 2**20


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
    lines = _LinesOfRows(path)
    reader = csv.reader(lines, strict=True, **dialect)
    rows = _rows_of_long_cells(reader, lines)
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


class _LinesOfRows:
    """The lines of a file, counted by row: a quote that is never closed makes all that follows one row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = enumerate(_lines(path), start=1)
        self.begin_row()

    def begin_row(self) -> None:
        """Count what follows as another row."""
        self._row_bytes = 0
        self._row_starts: int | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self._row_starts = self._row_starts or number
        self._row_bytes += len(line) if line.isascii() else len(line.encode())
        if self._row_bytes >= MAX_ROW_BYTES:
            raise _bad_row(self._path, self._row_starts, f"a row longer than {MAX_ROW_BYTES:,} bytes")
        return line


def _rows_of_long_cells(reader: Iterator[list[str]], lines: _LinesOfRows) -> Iterator[list[str]]:
    """Yield rows whose cells may be as long as a row, where csv's own limit is 131,072 characters.

    That limit is one for the whole process, and therefore another only while a row is read.
    """
    while True:
        lines.begin_row()
        usual = csv.field_size_limit(MAX_ROW_BYTES)
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
    with _parquet_file(path) as table:
        column = _choose_column(path, table.schema_arrow.names, column)
        column_type = table.schema_arrow.field(column).type
        if not _is_text(column_type):
            raise BadCaptionsError(
                f"{path.name}: column {column} holds {column_type}, not text", "name another column"
            )
        batches = _parquet_batches(path, table, column)
        for number, text in enumerate((text for batch in batches for text in batch), start=1):
            try:
                caption = text.as_py() or ""
            except UnicodeDecodeError as error:
                raise _bad_row(path, number, "not UTF-8 text", unit="row") from error
            if len(caption) > MAX_ROW_BYTES:
                raise _bad_row(path, number, f"longer than {MAX_ROW_BYTES:,} characters", unit="row")
            yield caption


def _parquet_file(path: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES, **options)


def _parquet_batches(path: Path, table: pq.ParquetFile, column: str) -> Iterator[pa.Array]:
    """Yield a column piece by piece, each of as many rows as memory holds."""
    place = [table.schema.column(each).path for each in range(len(table.schema))].index(column)
    with _parquet_file(path, read_dictionary=[column]) as by_dictionary:
        for group in range(table.num_row_groups):
            chunk = table.metadata.row_group(group).column(place)
            size = chunk.total_uncompressed_size
            if size > MAX_ROW_GROUP_BYTES:
                raise BadCaptionsError(
                    f"{path.name}: column {column} has a row group of {size:,} bytes, more than "
                    f"{MAX_ROW_GROUP_BYTES:,}",
                    "write the file with fewer rows in each row group",
                )
            longest = max(size // max(chunk.num_values, 1), _longest_shared(by_dictionary, group, column), 1)
            rows = min(MAX_ROW_BYTES // longest, PARQUET_ROWS)
            if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a value may begin as the one before, for a few bytes
                rows = min(MAX_ROW_GROUP_BYTES // max(size, 1), rows)
            for batch in table.iter_batches(max(rows, 1), row_groups=[group], columns=[column]):
                yield batch.column(column)


def _longest_shared(by_dictionary: pq.ParquetFile, group: int, column: str) -> int:
    """Return the bytes of the longest value in the dictionary of a row group, 0 if there is none.

    A value that many rows share lies there once, and in a batch as often as there are rows.
    """
    try:
        first = next(by_dictionary.iter_batches(1, row_groups=[group], columns=[column]), None)
    except (OSError, pa.ArrowException):  # of another encoding, or broken, which the reading will say
        return 0
    values = None if first is None else first.column(column)
    if not isinstance(values, pa.DictionaryArray):
        return 0
    return pc.max(pc.binary_length(values.dictionary)).as_py() or 0


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
        for number, line in enumerate(iter(partial(lines.readline, MAX_ROW_BYTES), b""), start=1):
            if len(line) == MAX_ROW_BYTES:
                raise _bad_row(path, number, f"longer than {MAX_ROW_BYTES:,} bytes")
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
    if wanted is None:
        found = [column for column in columns if len(columns) == 1 or column.lower() in USUAL_COLUMNS]
        problem = f"{path.name}: which column holds the captions?"
    else:
        found = [column for column in columns if column == wanted]
        if len(found) > 1:
            raise BadCaptionsError(
                f"{path.name} has {len(found)} columns {wanted!r}", "give each column a name of its own"
            )
        problem = f"{path.name} has no column {wanted!r}"
    if len(found) == 1:
        return found[0]
    named = ", ".join(columns) or "none, for there are no columns"
    raise BadCaptionsError(problem, f"give captions.column as one of: {named}")


def _bad_row(path: Path, number: int, problem: str, unit: str = "line") -> BadCaptionsError:
    return BadCaptionsError(f"{path.name}, {unit} {number}: {problem}", f"mend or remove that {unit}")
