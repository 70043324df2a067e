"""A revision follows all that is loaded of a teacher, and nothing else; weights are read for it once."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import revisions
from core.files import sha256
from core.registry import list_teachers
from core.revisions import revision_of, sampled_revision

PARTS = ("unet", "tokenizer")
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
WEIGHT_BYTES = 4 << 20
TENSORS = 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in a teacher's layout whose weights take several times what a sampled revision reads."""
    folder = tmp_path / "teacher"
    write(folder / "model_index.json", json.dumps({"force_zeros_for_empty_prompt": True}).encode())
    write(folder / "unet" / "config.json", b"{}")
    write(folder / WEIGHTS, bytes(range(256)) * (WEIGHT_BYTES // 256))
    write(folder / "tokenizer" / "merges.txt", b"c at")
    write(folder / "scheduler" / "scheduler_config.json", b"{}")
    write(folder / "evaluation_clip" / "model.safetensors", b"weights")
    return folder


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def flip(file: Path, place: int) -> None:
    """Change a byte of a file."""
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ 1]))


def files_read() -> int:
    return revisions._hash_unchanged.cache_info().misses


def test_a_change_of_any_one_tensor_changes_the_revision(folder: Path) -> None:
    found, sampled = {revision_of(folder, PARTS)}, {sampled_revision(folder)}
    for tensor in range(TENSORS):
        flip(folder / WEIGHTS, (2 * tensor + 1) * WEIGHT_BYTES // (2 * TENSORS))
        found.add(revision_of(folder, PARTS))
        sampled.add(sampled_revision(folder))
    assert len(found) == 1 + TENSORS
    assert len(sampled) < 1 + TENSORS // 2


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
        "evaluation_clip/model.safetensors",
    ],
)
def test_whatever_is_loaded_changes_the_revision(folder: Path, name: str) -> None:
    before = revision_of(folder, PARTS)
    write(folder / name, b"something else")
    assert revision_of(folder, PARTS) != before


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "teacher.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/deeper/config.json",
    ],
)
def test_what_is_not_loaded_does_not_change_it(folder: Path, name: str) -> None:
    before = revision_of(folder, PARTS)
    write(folder / name, b"something else")
    assert revision_of(folder, PARTS) == before


def test_a_teacher_has_the_same_revision_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copyfile)
    assert revision_of(tmp_path / "copied", PARTS) == revision_of(folder, PARTS)


def test_a_file_is_read_again_only_when_its_size_or_its_time_is_another(folder: Path) -> None:
    weights = folder / WEIGHTS
    before, read, stat = revision_of(folder, PARTS), files_read(), weights.stat()
    assert revision_of(folder, PARTS) == before
    assert files_read() == read
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert revision_of(folder, PARTS) == before
    assert files_read() == read + 1


def test_those_who_ask_at_the_same_time_wait_for_one_reading(folder: Path) -> None:
    read = files_read()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: revision_of(folder, PARTS), range(8)))
    assert len(set(found)) == 1
    assert files_read() == read + len([file for file in folder.rglob("*") if file.is_file()])


def test_listing_teachers_reads_no_weights(teachers_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(teachers_dir, tmp_path / "teachers")
    read = files_read()
    teacher = list_teachers([tmp_path / "teachers"])[0]
    assert files_read() == read
    assert teacher.revision == revision_of(teacher.path, ["unet", "vae", "tokenizer", "text_encoder"])
    assert files_read() > read


def test_the_revision_is_the_hash_of_the_hashes_of_all_files_by_name(folder: Path) -> None:
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    listed = "".join(f"{name} {sha256(folder / name)}\n" for name in names)
    assert revision_of(folder, PARTS) == hashlib.sha256(listed.encode()).hexdigest()


def test_the_revision_of_earlier_releases_stays_what_it_was(folder: Path) -> None:
    assert sampled_revision(folder) == "bbd284313fb86d4a5066b001ff52d81028da9c0232dbecf75bfcb42a85f09a9e"
