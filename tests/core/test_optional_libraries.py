"""What needs a library or weights that a machine may not have says so in a person's words, and early."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core import hub_captions, inception
from core.errors import BadCaptionsError, BadTeacherError, CoreError
from core.evaluation_clip import FOLDER as CLIP_FOLDER
from core.evaluation_clip import FOLDER_VARIABLE
from core.hub_captions import read_hub
from core.inception import WEIGHTS_VARIABLE, Inception, find_inception
from core.judges import NOTHING_TO_JUDGE_BY, check_judge
from core.spec import EvaluationSpec, HubCaptions
from core.teacher_folder import TeacherInfo, read_teacher

HUB = HubCaptions(dataset="someone/captions", column="text", limit=3)


def installed(monkeypatch: pytest.MonkeyPatch, module: ModuleType, present: bool) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: SimpleNamespace() if present else None)


def test_a_hub_set_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, hub_captions, False)
    with pytest.raises(BadCaptionsError, match="not installed") as raised:
        list(read_hub(HUB))
    assert "condenser[hub]" in raised.value.hint


class Rows(list[dict[str, object]]):
    """As much of a streamed data set as is used: an iterable of rows with column names."""

    column_names = ("text", "url")


def hub_of(monkeypatch: pytest.MonkeyPatch, rows: Rows | Exception) -> None:
    def load_dataset(
        path: str, name: str | None, *, split: str, revision: str | None, streaming: bool
    ) -> Rows:
        assert (path, name, split, revision, streaming) == ("someone/captions", None, "train", None, True)
        if isinstance(rows, Exception):
            raise rows
        return rows

    installed(monkeypatch, hub_captions, True)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_a_hub_set_gives_its_column_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_of(monkeypatch, Rows([{"text": "one"}, {"text": None}, {"text": "three"}, {"text": "four"}]))
    assert list(read_hub(HUB)) == ["one", "", "three"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows([{"text": "one"}, {"text": 2}]), "row 2: text holds int"),
        (ConnectionError("no network"), "no network"),
    ],
)
def test_a_broken_hub_set_says_why(
    monkeypatch: pytest.MonkeyPatch, rows: Rows | Exception, message: str
) -> None:
    hub_of(monkeypatch, rows)
    with pytest.raises(BadCaptionsError, match=message):
        list(read_hub(HUB))


def test_a_folder_of_the_name_of_a_hub_set_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_of(monkeypatch, Rows([{"text": "a secret of this machine"}]))
    (tmp_path / "someone" / "captions").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadCaptionsError, match="is a folder here"):
        list(read_hub(HUB))


@pytest.mark.parametrize("reader", ["text", "csv", "parquet", "imagefolder"])
def test_a_reader_of_files_is_no_hub_set(monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    hub_of(monkeypatch, Rows([{"text": "a secret of this machine"}]))
    with pytest.raises(BadCaptionsError, match="its owner is missing") as raised:
        list(read_hub(HUB.model_copy(update={"dataset": reader})))
    assert "owner/name" in raised.value.hint


def test_a_hub_set_without_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_of(monkeypatch, Rows())
    with pytest.raises(BadCaptionsError, match="no column 'caption'") as raised:
        list(read_hub(HUB.model_copy(update={"column": "caption"})))
    assert raised.value.hint == "its columns: text, url"


def test_inception_is_missed_at_the_start_of_a_job(
    monkeypatch: pytest.MonkeyPatch, teacher_info: TeacherInfo
) -> None:
    check_judge(teacher_info, EvaluationSpec())
    installed(monkeypatch, inception, False)
    with pytest.raises(CoreError, match="torch-fidelity is not installed"):
        check_judge(teacher_info, EvaluationSpec(features="inception"))


@pytest.fixture
def clipless(teachers_dir: Path, tmp_path: Path) -> TeacherInfo:
    ignored = shutil.ignore_patterns(CLIP_FOLDER)
    return read_teacher(shutil.copytree(teachers_dir / "weights", tmp_path / "teacher", ignore=ignored))


@pytest.mark.parametrize("features", ["clip", "inception"])
def test_a_folder_that_is_no_clip_is_told_at_the_start_of_a_job(
    monkeypatch: pytest.MonkeyPatch, clipless: TeacherInfo, tmp_path: Path, features: str
) -> None:
    folder = tmp_path / "clip"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    with pytest.raises(CoreError) as raised:
        check_judge(clipless, EvaluationSpec(features=features))
    assert raised.value.message == (
        f"{folder}, which CONDENSER_EVALUATION_CLIP names, has no config.json "
        "and no preprocessor_config.json and no safetensors weights"
    )
    assert raised.value.reason == "internal_error"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (
            lambda f: (f / "preprocessor_config.json").write_text('{"image_std": [1, 1, 1]}'),
            "has no image_mean in preprocessor_config.json",
        ),
        (lambda f: (f / "preprocessor_config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "model.safetensors").rename(f / "model.bin"), "has no safetensors weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "model.fp16.safetensors"),
            "has no safetensors weights",
        ),
    ],
)
def test_a_clip_that_is_not_whole_is_told_at_the_start_of_a_job(
    monkeypatch: pytest.MonkeyPatch,
    teacher_info: TeacherInfo,
    clipless: TeacherInfo,
    tmp_path: Path,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    elsewhere = shutil.copytree(teacher_info.path / CLIP_FOLDER, tmp_path / "clip")
    monkeypatch.setenv(FOLDER_VARIABLE, str(elsewhere))
    check_judge(clipless, EvaluationSpec())
    damage(elsewhere)
    with pytest.raises(CoreError, match=message):
        check_judge(clipless, EvaluationSpec())
    shutil.copytree(elsewhere, clipless.path / CLIP_FOLDER)
    with pytest.raises(BadTeacherError, match=message) as raised:
        check_judge(clipless, EvaluationSpec())
    assert CLIP_FOLDER in raised.value.message


def test_that_there_is_nothing_to_judge_by_is_told_at_the_start_of_a_job(
    monkeypatch: pytest.MonkeyPatch, teacher_info: TeacherInfo, clipless: TeacherInfo
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert check_judge(clipless, EvaluationSpec()) == [NOTHING_TO_JUDGE_BY]
    assert check_judge(teacher_info, EvaluationSpec()) == []
    monkeypatch.setenv(FOLDER_VARIABLE, str(teacher_info.path / CLIP_FOLDER))
    assert check_judge(clipless, EvaluationSpec()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "references.json").unlink(),
        lambda f: (f / "references.json").write_text("{"),
        lambda f: (f / "references.json").write_text('[{"name": "cat"}]'),
        lambda f: (f / "references.json").write_text('[{"captions": ["cat"]}]'),
        lambda f: (f / "references.safetensors").write_bytes(b"torn"),
    ],
    ids=["missing", "torn", "without captions", "of other rows", "torn embeddings"],
)
def test_references_that_are_not_whole_are_told_at_the_start_of_a_job(
    teacher_info: TeacherInfo, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = shutil.copytree(teacher_info.path, tmp_path / "teacher")
    damage(folder)
    with pytest.raises(BadTeacherError) as raised:
        check_judge(read_teacher(folder), EvaluationSpec())
    assert "references" in raised.value.message
    assert raised.value.hint


def test_inception_needs_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, inception, True)
    weights = tmp_path / "inception.pth"
    for environment in ({}, {WEIGHTS_VARIABLE: str(weights)}):
        with pytest.raises(CoreError, match=WEIGHTS_VARIABLE):
            find_inception(environment)
    weights.touch()
    assert find_inception({WEIGHTS_VARIABLE: str(weights)}) == weights


def test_inception_gives_features_and_probabilities() -> None:
    class Network(torch.nn.Linear):
        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = super().forward(pictures.float().flatten(1))
            return features, 2 * features

    pictures = torch.randint(0, 256, (3, 3, 2, 2), dtype=torch.uint8)
    network = Network(12, 5)
    features, probabilities = Inception(network)(pictures)
    torch.testing.assert_close(probabilities, (2 * features).softmax(dim=1))
    assert not features.requires_grad


def test_inception_sees_pictures_as_small_as_the_published_figures_did() -> None:
    seen = []

    class Network(torch.nn.Linear):
        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(pictures)
            return torch.zeros(len(pictures), 1), torch.zeros(len(pictures), 1)

    judge = Inception(Network(1, 1))
    small = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    judge(small)
    large = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    judge(torch.from_numpy(large).permute(2, 0, 1)[None])
    assert torch.equal(seen[0], small)
    by_pillow = np.asarray(Image.fromarray(large).resize((256, 256), Image.Resampling.BICUBIC))
    difference = seen[1][0].permute(1, 2, 0).numpy().astype(int) - by_pillow
    assert seen[1].dtype == torch.uint8
    assert abs(difference).max() <= 1
