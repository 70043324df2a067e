"""A teacher is found by whichever name a specification gives it."""

from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from core import teacher_refs
from core.errors import BadTeacherError, StorageFullError, UnknownTeacherError
from core.teacher_refs import hub_patterns, resolve_teacher


def test_a_teacher_can_be_given_as_a_folder(teachers_dir: Path) -> None:
    assert resolve_teacher(str(teachers_dir / "weights"), []).id == "emoji-64"


def test_a_folder_may_have_an_at_sign_in_its_name(teachers_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher@v2").symlink_to(teachers_dir / "weights")
    assert resolve_teacher(str(tmp_path / "teacher@v2"), []).id == "emoji-64"


def test_a_teacher_can_be_given_by_its_id(teachers_dir: Path) -> None:
    assert resolve_teacher("emoji-64", [teachers_dir]).path == teachers_dir / "weights"
    with pytest.raises(UnknownTeacherError):
        resolve_teacher("emoji-65", [teachers_dir])


def test_a_hub_reference_that_is_no_repository_is_a_bad_teacher() -> None:
    with pytest.raises(BadTeacherError, match="cannot be fetched"):
        resolve_teacher("no/such/repository@main", [])


def test_a_disk_that_is_full_while_fetching_is_no_fault_of_the_teacher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(repository: str, **what: str) -> None:
        Path("/dev/full").write_text(repository)

    monkeypatch.setattr(teacher_refs, "hf_hub_download", download)
    with pytest.raises(StorageFullError):
        resolve_teacher("owner/name@main", [])


def test_an_object_store_is_not_read_from_here() -> None:
    with pytest.raises(BadTeacherError, match="object store"):
        resolve_teacher("s3://bucket/teacher", [])


def test_of_a_repository_only_the_pipeline_is_fetched() -> None:
    patterns = hub_patterns({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"]})
    assert "unet/*.safetensors" in patterns
    licences = ["LICENSE", "License.txt", "license.md", "Use_Policy.md"]
    assert list(filter_repo_objects([*licences, "my-license"], allow_patterns=patterns)) == licences
    assert "*.safetensors" not in patterns  # single-file checkpoints beside the pipeline
    assert not any(pattern.startswith("_") for pattern in patterns)
