"""What needs a library or weights that a machine may not have says so in a person's words, and early."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from core import hub_captions, inception
from core.errors import BadCaptionsError, CoreError
from core.hub_captions import read_hub
from core.inception import WEIGHTS_VARIABLE, Inception, find_inception
from core.judges import check_judge
from core.spec import EvaluationSpec, HubCaptions

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


def test_a_hub_set_without_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_of(monkeypatch, Rows())
    with pytest.raises(BadCaptionsError, match="no column 'caption'") as raised:
        list(read_hub(HUB.model_copy(update={"column": "caption"})))
    assert raised.value.hint == "its columns: text, url"


def test_inception_is_missed_at_the_start_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    check_judge(EvaluationSpec())
    installed(monkeypatch, inception, False)
    with pytest.raises(CoreError, match="torch-fidelity is not installed"):
        check_judge(EvaluationSpec(features="inception"))


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
