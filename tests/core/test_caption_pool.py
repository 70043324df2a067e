"""Captions on disk come back as they went in."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.caption_pool import CaptionPool, CaptionPoolWriter


def write_pool(folder: Path, texts: list[str]) -> CaptionPool:
    with CaptionPoolWriter(folder) as writer:
        for text in texts:
            writer.append(text)
        assert writer.count == len(texts)
    return CaptionPool(folder)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_texts_come_back_by_index(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    pool = write_pool(tmp_path_factory.mktemp("pool"), texts)
    assert len(pool) == len(texts)
    assert pool.texts(range(len(texts))) == texts
    assert pool.texts(reversed(range(len(texts)))) == texts[::-1]


def test_reading_all_of_a_pool_keeps_none_of_it_in_memory(tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux says what is resident")
    pool = write_pool(tmp_path, [f"{number} " + "x" * 4_000 for number in range(10_000)])
    before = _resident_kilobytes(status)
    for start in range(0, 10_000, 100):
        assert len(pool.texts(range(start, start + 100))) == 100
    assert _resident_kilobytes(status) - before < 8_000  # of 40,000


def _resident_kilobytes(status: Path) -> int:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    pool = write_pool(tmp_path, ["one"])
    descriptors = pool._bytes, pool._offsets
    del pool
    gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
