"""Captions from files of every format and compression, and errors that name the row."""

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import caption_readers
from core.caption_readers import read_file
from core.errors import BadCaptionsError
from core.spec import FileCaptions

LINES = ["small cat", 'a "quoted", red bus', "Größe 3, ça va", ""]
TEXTS = [text.replace(" bus", "\nbus") for text in LINES]


def read(path: Path, **fields: object) -> list[str]:
    return list(read_file(FileCaptions(path=str(path), **fields)))


def as_csv(texts: list[str]) -> bytes:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["id", "caption"])
    writer.writerows(enumerate(texts))
    return table.getvalue().encode()


def as_tsv(texts: list[str]) -> bytes:
    return "".join(f"{number}\t{text}\n" for number, text in [("id", "caption"), *enumerate(texts)]).encode()


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "caption": text}) + "\n" for text in texts).encode()


def compress(content: bytes, suffix: str) -> bytes:
    match suffix:
        case ".gz":
            return gzip.compress(content[:5]) + gzip.compress(
                content[5:]
            )  # two members, as pigz and cat write
        case ".zst":
            return pa.compress(content, codec="zstd", asbytes=True)
    return content


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("suffix", "write", "texts"),
    [(".csv", as_csv, TEXTS), (".tsv", as_tsv, LINES), (".jsonl", as_jsonl, TEXTS)],
)
def test_tables_give_their_caption_column(
    tmp_path: Path, suffix: str, write: Callable[[list[str]], bytes], texts: list[str], compression: str
) -> None:
    path = tmp_path / f"a.b{suffix}{compression}"
    path.write_bytes(compress(write(texts), compression))
    assert read(path) == texts
    assert read(path, column="caption", limit=2) == texts[:2]


@pytest.mark.parametrize("header", ["caption\turl", "caption"])
def test_quotes_mean_nothing_in_tsv(tmp_path: Path, header: str) -> None:
    texts = ['"Blue" by Picasso', '"foo', 'bar"', '""', "it's 5' 11\""]
    rest = "\thttp://x" if "url" in header else ""
    path = tmp_path / "captions.tsv"
    path.write_text("\n".join([header, *(text + rest for text in texts)]))
    assert read(path) == texts


def test_a_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    usual = csv.field_size_limit()
    path = tmp_path / "captions.csv"
    path.write_text(f"caption,page\na cat,{'x' * 140_000}\n{'y' * 140_000},z\n")
    rows = read_file(FileCaptions(path=str(path)))
    assert next(rows) == "a cat"
    assert csv.field_size_limit() == usual
    assert list(rows) == ["y" * 140_000]
    many_lines = "line\n" * 2**22
    path.write_text(f'caption\n"{many_lines}"\n')
    with pytest.raises(BadCaptionsError, match=r"captions\.csv, line 2: a row longer than 16,777,216"):
        read(path)
    assert csv.field_size_limit() == usual


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv"])
def test_a_caption_is_not_lost_as_the_name_of_a_column(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a cat\na dog\n")
    with pytest.raises(BadCaptionsError, match=f"{name}: is the first line, 'a cat', the") as raised:
        read(path)
    assert "captions.format to text" in raised.value.hint
    assert read(path, format="text") == ["a cat\n", "a dog\n"]
    assert read(path, column="a cat") == ["a dog"]
    path.write_text("Text\na dog\n")
    assert read(path) == ["a dog"]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_text_gives_its_lines(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"captions.txt{compression}"
    path.write_bytes(compress("\ufeffone\r\n\ntwo, three".encode(), compression))
    assert [line.strip() for line in read(path)] == ["one", "", "two, three"]


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_parquet_gives_a_column_of_text(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "captions.parquet"
    table = pa.table({"url": ["u"] * 3, "TEXT": ["one", None, "three"], "width": [1, 2, 3]})
    pq.write_table(table, path, compression=codec, row_group_size=2)
    assert read(path) == ["one", "", "three"]
    with pytest.raises(BadCaptionsError, match="width holds int64"):
        read(path, column="width")


@pytest.mark.parametrize(
    "column_type",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_parquet_has_many_types_of_text(tmp_path: Path, column_type: pa.DataType) -> None:
    path = tmp_path / "captions.parquet"
    texts = pa.array(["one", None, "Größe", "one"]).cast(column_type)
    pq.write_table(pa.table({"caption": texts}), path, row_group_size=2)
    assert pq.read_schema(path).field("caption").type == column_type
    assert read(path) == ["one", "", "Größe", "one"]


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_parquet_has_many_encodings_of_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "captions.parquet"
    texts = ["one", None, "ones", "Größe"]
    pq.write_table(
        pa.table({"caption": texts}), path, use_dictionary=False, column_encoding=encoding, row_group_size=2
    )
    assert encoding in pq.read_metadata(path).row_group(0).column(0).encodings
    assert read(path) == [text or "" for text in texts]


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_of_parquet_with_a_dot_is_no_path(tmp_path: Path, order: int) -> None:
    path = tmp_path / "captions.parquet"
    columns = {"a": [{"b": "of a structure"}], "a.b": ["a cat"]}
    pq.write_table(pa.table(dict(list(columns.items())[::order])), path)
    assert read(path, column="a.b") == ["a cat"]


def test_a_parquet_file_says_which_row_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    broken = pa.array([b"one", b"\xff\xfe", b"three"]).view(pa.string())
    pq.write_table(pa.table({"text": broken}), path)
    with pytest.raises(BadCaptionsError, match=r"captions\.parquet, row 2: not UTF-8") as raised:
        read(path)
    assert raised.value.hint == "mend or remove that row"


def test_json_lines_may_be_plain_strings(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('"one"\n\nnull\n{"prompt": "two", "seed": 3}\n')
    assert read(path) == ["one", "", "two"]


def test_the_format_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "captions.data"
    path.write_bytes(as_csv(TEXTS))
    assert read(path, format="csv") == TEXTS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.CSV", as_csv(TEXTS)),
        ("a.Jsonl.GZ", gzip.compress(as_jsonl(TEXTS), mtime=0)),
        ("captions", "\n".join(TEXTS).encode()),
        ("captions.gz", gzip.compress(b"one", mtime=0)),
    ],
)
def test_the_case_of_an_ending_does_not_matter_and_a_name_without_one_is_text(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    expected = {"captions": "\n".join(TEXTS).splitlines(), "captions.gz": ["one"]}.get(name, TEXTS)
    assert [text.removesuffix("\n") for text in read(tmp_path / name)] == expected


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.xlsx", "a.JSON", "captions.v2"])
def test_a_file_of_an_unknown_ending_is_no_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('["a cat",\n"a dog"]')
    with pytest.raises(BadCaptionsError, match=f"{name} ends in .*no format of captions") as raised:
        read(tmp_path / name)
    assert ".jsonl, .ndjson, .parquet" in raised.value.hint
    assert "captions.format (text, csv" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ok\n\xff\xfe\n", "line 2: not UTF-8"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "ok"}\n{"caption": "x"}\n', "line 2: no 'text', only caption"),
        ("a.jsonl", b'"ok"\n[1, 2]\n', r"line 2: the caption is \[1, 2\]"),
        ("a.csv", b"id,text\n1,ok\n2\n", "line 3: 1 cells under 2 columns"),
        ("a.csv", b'id,text\n1,"open\n', "line 2: unexpected end of data"),
        ("a.csv", b"a,b\n1,2\n", "which column"),
        ("a.csv", b"text,caption\n1,2\n", "which column"),
        ("a.csv", b"", "which column"),
        ("a.txt.gz", gzip.compress(b"one\n" * 99, mtime=0)[:-12], "cannot be read"),
        ("a.txt.zst", b"no zstd at all", "cannot be read"),
        ("a.parquet", b"PAR1 not really", "cannot be read"),
        ("absent.txt", None, "cannot be read"),
    ],
)
def test_a_broken_file_says_what_and_where(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCaptionsError, match=message) as raised:
        read(tmp_path / name)
    assert raised.value.message.startswith(name)
    assert raised.value.hint


def test_a_wrong_column_lists_the_right_ones(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_bytes(as_csv(TEXTS))
    with pytest.raises(BadCaptionsError, match="no column 'text'") as raised:
        read(path, column="text")
    assert raised.value.hint == "give captions.column as one of: id, caption"


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv", "captions.parquet"])
def test_a_column_that_is_there_twice_is_not_guessed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    columns = ["url", "text", "text"]
    if name.endswith(".parquet"):
        pq.write_table(
            pa.Table.from_arrays([pa.array(["u"]), pa.array(["a"]), pa.array(["b"])], columns), path
        )
    else:
        separator = "," if name.endswith(".csv") else "\t"
        path.write_text("".join(separator.join(row) + "\n" for row in (columns, ["u", "a", "b"])))
    with pytest.raises(BadCaptionsError, match="has 2 columns 'text'") as raised:
        read(path, column="text")
    assert raised.value.hint == "give each column a name of its own"
    with pytest.raises(BadCaptionsError, match="which column"):
        read(path)
    assert read(path, column="url") == ["u"]


PRINTABLE = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"))


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(PRINTABLE))
def test_any_text_survives_csv_and_json_lines(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "a.csv").write_bytes(as_csv(texts))
    (folder / "a.jsonl").write_bytes(as_jsonl(texts))
    assert read(folder / "a.csv") == texts
    assert read(folder / "a.jsonl", column="caption") == texts


@settings(deadline=None, max_examples=100)
@given(
    content=st.binary(max_size=60),
    suffix=st.sampled_from(["txt", "csv", "jsonl", "parquet", "txt.gz", "csv.zst"]),
)
def test_no_file_ends_in_another_error(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("captions") / f"a.{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(BadCaptionsError):
        assert all(isinstance(text, str) for text in read(path))


def test_a_line_that_no_memory_holds_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as bomb:
        bomb.write(b"a cat\n")
        for _ in range(64):
            bomb.write(bytes(2**20))
    with pytest.raises(BadCaptionsError, match=r"bomb\.txt\.gz, line 2: longer than 16,777,216 bytes"):
        read(path)


def test_a_row_of_many_lines_that_no_memory_holds_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    long = "x" * 2**20 + "\n"
    with gzip.open(path, "wt", compresslevel=1) as bomb:
        bomb.write(f'caption,url\na cat,u\n"{long}",u\n"')
        for _ in range(64):
            bomb.write(f'{long}","')
    rows = read_file(FileCaptions(path=str(path)))
    assert [next(rows), next(rows)] == ["a cat", long]
    with pytest.raises(BadCaptionsError, match=r"bomb\.csv\.gz, line 5: a row longer than 16,777,216 bytes"):
        next(rows)


def test_a_value_that_many_rows_of_parquet_share_is_not_held_for_each(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 4_096, pa.int32()), pa.array(["x" * 2**17]))
    pq.write_table(pa.table({"caption": shared}), path, store_schema=False)
    assert pq.read_schema(path).field("caption").type == pa.string()
    before = pa.total_allocated_bytes()
    rows = read_file(FileCaptions(path=str(path)))
    assert next(rows) == "x" * 2**17
    assert pa.total_allocated_bytes() - before < 2**26  # all of them are eight times as much
    assert sum(1 for _ in rows) == 4_095


def test_what_values_of_parquet_take_over_from_the_one_before_is_not_held_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_readers, "MAX_ROW_GROUP_BYTES", 2**24)
    path = tmp_path / "captions.parquet"
    texts = pa.array(["x" * 2**15]).take(pa.array([0] * 4_096))
    encoding = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}
    pq.write_table(pa.table({"caption": texts}), path, compression="none", **encoding)
    assert path.stat().st_size < 2**17
    before = pa.total_allocated_bytes()
    rows = read_file(FileCaptions(path=str(path)))
    assert next(rows) == "x" * 2**15
    assert pa.total_allocated_bytes() - before < 2**26  # all of them are twice that


def test_fewer_rows_of_parquet_are_read_at_once_where_they_are_long(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    texts = [str(number) * 2**17 for number in range(10)] * 40
    pq.write_table(
        pa.table({"caption": texts}), path, use_dictionary=False, data_page_size=2**20, write_batch_size=8
    )
    before = pa.total_allocated_bytes()
    rows = read_file(FileCaptions(path=str(path)))
    assert next(rows) == texts[0]
    assert pa.total_allocated_bytes() - before < 2**25  # and all of them are more
    assert list(rows) == texts[1:]


def test_what_no_memory_holds_of_parquet_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": ["a cat", "x" * 2**16]}), path)
    monkeypatch.setattr(caption_readers, "MAX_ROW_BYTES", 2**15)
    with pytest.raises(BadCaptionsError, match=r"captions\.parquet, row 2: longer than 32,768 characters"):
        read(path)
    monkeypatch.setattr(caption_readers, "MAX_ROW_GROUP_BYTES", 2**15)
    with pytest.raises(BadCaptionsError, match=r"captions\.parquet: column caption has a row group of 65,"):
        read(path)


def test_a_deeply_nested_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('"a cat"\n' + "[" * 100_000 + "\n")
    with pytest.raises(BadCaptionsError, match=r"line 2: not JSON"):
        read(path)
