"""How good a student is beside its teacher: both draw the same captions from the same seeds, and are judged.

They are compared with what the teacher draws of these captions from other seeds, so that the teacher's own
distance, which is not zero, is the best one to hope for. Captions that were drawn for the training, captions
that were text only, and those held out on purpose are measured apart.

What the judge says of the pictures is kept in the cache, so that an evaluation that was stopped goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from core.artist import Artist
from core.captions import CaptionSet, Split
from core.cost import count_multiply_accumulates, count_parameters, milliseconds_per_picture
from core.events import EventWriter, Progress
from core.judges import NOTHING_TO_JUDGE_BY, Judgements, load_judge
from core.memory_use import computation_memory_bytes
from core.picture_sets import PictureSet, hash_weights, student_pictures, teacher_pictures
from core.randomness import derived_seed
from core.scores import score_pictures
from core.stopping import StopRequest


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes
    ----------
    teacher, student
        Each draws with its own sampler, steps and guidance; the teacher's say how much is measured.
    captions
        What is drawn.
    seed
        The job's.
    cache
        Shared between jobs: the judgements of pictures.
    keeps_student
        Whether those of the student's are kept, too. A student that trains on is never judged again.
    """

    teacher: Artist
    student: Artist
    captions: CaptionSet
    seed: int
    cache: Path
    keeps_student: bool = True

    @cached_property
    def _student_hash(self) -> str:
        return hash_weights(self.student.unet)

    def picture_sets(self, split: Split) -> dict[str, PictureSet]:
        """Return the sets to be drawn of a split: the reference, and both models at all numbers of steps."""
        evaluation = self.teacher.evaluation
        texts = self._texts(split)
        seeds = self._seeds(split, "evaluation")
        sets = {
            "reference": teacher_pictures(self.teacher, texts, self._seeds(split, "reference"), self.cache)
        }
        for steps in (None, *evaluation.more_steps):
            suffix = "" if steps is None else f"-{steps}"
            teacher, student = (
                artist if steps is None else artist.at_steps(steps) for artist in (self.teacher, self.student)
            )
            sets[f"teacher{suffix}"] = teacher_pictures(teacher, texts, seeds, self.cache)
            sets[f"student{suffix}"] = (
                student_pictures(student, self._student_hash, texts, seeds, self.cache)
                if self.keeps_student
                else PictureSet(student, texts, seeds, folder=None)
            )
        return sets

    def score(
        self,
        split: Split,
        sets: Mapping[str, PictureSet],
        judged: Mapping[str, Judgements],
        stop: StopRequest,
    ) -> dict[str, Any]:
        """Return the scores of both models on one split, at their own steps and at all further ones."""
        evaluation = self.teacher.evaluation
        values = {"pictures": evaluation.samples, **self._compare(split, sets, judged, stop)}
        if evaluation.more_steps:
            values["by_steps"] = {
                str(steps): self._compare(split, sets, judged, stop, f"-{steps}")
                for steps in evaluation.more_steps
            }
        return values

    def _compare(
        self,
        split: Split,
        sets: Mapping[str, PictureSet],
        judged: Mapping[str, Judgements],
        stop: StopRequest,
        suffix: str = "",
    ) -> dict[str, Any]:
        """Return scores and intervals of both models in the sets whose names end in `suffix`."""
        values: dict[str, Any] = {"unet_calls": {}, "intervals": {}}
        for name in ("teacher", "student"):
            values[name], values["intervals"][name] = score_pictures(
                judged[name + suffix],
                judged["reference"],
                self.teacher.evaluation.bootstrap_resamples,
                derived_seed(self.seed, "bootstrap", split),
                stop.check,
            )
            values["unet_calls"][name] = sets[name + suffix].artist.unet_calls
        return values

    def _texts(self, split: Split) -> list[str]:
        count = self.teacher.evaluation.samples
        return self.captions.texts(
            self.captions.choose(split, count, derived_seed(self.seed, "evaluation", split))
        )

    def _seeds(self, split: Split, purpose: str) -> Sequence[int]:
        return [
            derived_seed(self.seed, purpose, split, number)
            for number in range(self.teacher.evaluation.samples)
        ]


def evaluate(evaluation: Evaluation, events: EventWriter, stop: StopRequest) -> dict[str, Any]:
    """Measure a student beside its teacher.

    Parameters
    ----------
    evaluation
        Who draws what.
    events, stop
        Where to report, and whether to stop between two batches or two resamples.

    Returns
    -------
    dict
        Under ``teacher`` and ``student`` what each costs; under ``drawn``, ``text_only`` and ``held_out`` the
        scores of both on such captions, as far as there are any, with their ``intervals``, their
        ``unet_calls`` for a picture, and the same again ``by_steps``.
    """
    costs = measure_costs({"teacher": evaluation.teacher, "student": evaluation.student})
    return costs | judge_pictures(evaluation, events, stop)


def judge_pictures(evaluation: Evaluation, events: EventWriter, stop: StopRequest) -> dict[str, Any]:
    """Return the scores of `evaluate`; none where there is nothing to judge pictures by."""
    teacher, captions = evaluation.teacher, evaluation.captions
    judge = load_judge(teacher.teacher, teacher.evaluation)
    if judge is None:
        events.warning(NOTHING_TO_JUDGE_BY)
        return {}
    sets = {split: evaluation.picture_sets(split) for split, size in captions.splits.items() if size}
    # At as many steps as of its own a model draws the same pictures, which are judged once.
    distinct = {one.folder: one for named in sets.values() for one in named.values()}.values()
    progress = Progress(
        events,
        "evaluation",
        "pictures",
        len(distinct) * teacher.evaluation.samples,
        done=sum(one.judged_before for one in distinct),
    )
    values = {}
    for split, named in sets.items():
        judged = {name: one.judgements(judge, stop, progress) for name, one in named.items()}
        values[split] = evaluation.score(split, named, judged, stop)
    return values


def measure_costs(artists: dict[str, Artist]) -> dict[str, dict[str, float]]:
    """Return each model's parameters, multiply-accumulates of a U-Net pass, and a picture's time and memory.

    Memory is that of the whole pipeline, text encoders and decoder included.
    """
    draws = [partial(artist.draw, [""], [0]) for artist in artists.values()]
    memory = [
        computation_memory_bytes(draw, artist.modules(), artist.teacher.device)
        for draw, artist in zip(draws, artists.values(), strict=True)
    ]
    times = milliseconds_per_picture(draws)
    costs = {}
    for (name, artist), milliseconds, most_bytes in zip(artists.items(), times, memory, strict=True):
        config, prompt_tokens = artist.unet.config, artist.teacher.tokenizer.model_max_length
        costs[name] = {
            "parameters": count_parameters(config),
            "gmacs": count_multiply_accumulates(config, prompt_tokens) / 1e9,
            "milliseconds_per_picture": milliseconds,
            "peak_memory_bytes": most_bytes,
        }
    return costs
