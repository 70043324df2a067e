"""Latents: content-addressed, resumed shard by shard, and not larger on disk than they need be."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from core import events as events_module
from core import latents as latents_module
from core.captions import CaptionSet, prepare_captions
from core.events import EventWriter
from core.latents import LatentSet, prepare_latents
from core.ranks import Ranks
from core.spec import DistillationSpec, LatentsSpec
from core.stopping import Stopped, StopRequest
from core.teacher import Teacher
from tests.core.conftest import StopAfter

SPEC = LatentsSpec(sampler="ddim", steps=2, guidance_scale=2, batch_size=2)
PICTURES = 7


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    texts = [f"small cat {number}" for number in range(10)]
    spec = {"teacher": "t", "captions": {"kind": "inline", "texts": texts}, "drawn": {"count": PICTURES}}
    return prepare_captions(DistillationSpec.model_validate(spec), tmp_path / "captions", [])


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with closing(EventWriter(tmp_path / "events.jsonl")) as writer:
        yield writer


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "SHARD_PICTURES", 3)  # rounded up to two batches of two


def content(latents: LatentSet) -> torch.Tensor:
    return latents.gather(torch.arange(len(latents)))


def test_a_resumed_run_draws_the_missing_shards_alone(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    whole = prepare_latents(teacher, captions, SPEC, 0, tmp_path / "one", events, StopRequest())
    assert [len(shard) for shard in whole.shards] == [4, 3]
    with pytest.raises(Stopped):
        prepare_latents(teacher, captions, SPEC, 0, tmp_path / "two", events, StopAfter(3))
    (first,) = (tmp_path / "two").rglob("*.safetensors")
    written = first.stat().st_mtime_ns
    resumed = prepare_latents(teacher, captions, SPEC, 0, tmp_path / "two", events, StopAfter(2))
    assert torch.equal(content(resumed), content(whole))
    assert first.stat().st_mtime_ns == written


def test_a_full_cache_needs_no_drawing(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    prepare_latents(teacher, captions, SPEC, 0, tmp_path, events, StopRequest())
    prepare_latents(teacher, captions, SPEC, 0, tmp_path, events, StopAfter(0))


def test_progress_counts_what_the_other_ranks_draw(
    teacher: Teacher,
    captions: CaptionSet,
    events: EventWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "PROGRESS_INTERVAL_SECONDS", 0)
    first_of_two = Ranks(rank=0, count=2)
    with pytest.raises(FileNotFoundError):  # the other one's shard
        prepare_latents(teacher, captions, SPEC, 0, tmp_path / "a", events, StopRequest(), first_of_two)
    assert told(tmp_path) == [4, PICTURES]
    prepare_latents(teacher, captions, SPEC, 0, tmp_path / "b", events, StopRequest())
    prepare_latents(teacher, captions, SPEC, 0, tmp_path / "b", events, StopRequest())
    assert told(tmp_path)[2:] == [2, 4, 6, PICTURES, PICTURES]


def test_ranks_that_find_different_shards_draw_every_one_of_them(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    """Another job that shares the cache finishes the first shard when one rank has looked and one has not."""
    spec = SPEC.model_copy(update={"batch_size": 1})
    prepare_latents(teacher, captions, spec, 0, tmp_path / "whole", events, StopRequest())
    _, *later = everything = names_of_shards(tmp_path / "whole")
    assert len(later) == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "1")
    for file in (tmp_path / "1").rglob("*.safetensors"):
        if file.name in later:
            file.unlink()
    for rank in range(2):
        ranks = Ranks(rank, count=2)
        with pytest.raises(FileNotFoundError):  # the other one's shards
            prepare_latents(teacher, captions, spec, 0, tmp_path / str(rank), events, StopRequest(), ranks)
    drawn = [names_of_shards(tmp_path / str(rank)) for rank in range(2)]
    assert sorted({*drawn[0], *drawn[1]}) == everything


def names_of_shards(cache: Path) -> list[str]:
    return sorted(file.name for file in cache.rglob("*.safetensors"))


def told(folder: Path) -> list[int]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event["done"] for event in map(json.loads, lines) if event["type"] == "progress"]


@pytest.mark.parametrize(("spec", "seed"), [(SPEC, 1), (SPEC.model_copy(update={"steps": 3}), 0)])
def test_another_seed_or_sampler_is_another_key(
    teacher: Teacher,
    captions: CaptionSet,
    events: EventWriter,
    tmp_path: Path,
    spec: LatentsSpec,
    seed: int,
) -> None:
    prepare_latents(teacher, captions, SPEC, 0, tmp_path, events, StopRequest())
    prepare_latents(teacher, captions, spec, seed, tmp_path, events, StopRequest())
    assert len(list((tmp_path / "latents").iterdir())) == 2


def test_shards_hold_their_latents_and_nothing_more(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    latents = prepare_latents(teacher, captions, SPEC, 0, tmp_path, events, StopRequest())
    assert latents.caption_N.tolist() == captions.drawn.tolist()
    half_precision_bytes = 2 * 4 * 8 * 8
    sizes = sorted(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert sizes[0] < 3 * half_precision_bytes + 200
    assert torch.equal(latents.gather(torch.tensor([5, 0, 5])), content(latents)[[5, 0, 5]])
