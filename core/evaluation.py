"""How good a student is beside its teacher: both draw the same captions from the same seeds, and are judged.

They are compared with what the teacher draws of these captions from other seeds, so that the teacher's own
distance, which is not zero, is the best one to hope for. Captions that were drawn for the training, captions
that were text only, and those held out on purpose are measured apart.

What the judge says of each set of pictures is kept on disk, so that an evaluation that was stopped goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from core.artist import Artist
from core.captions import CaptionSet, Split
from core.cost import count_multiply_accumulates, count_parameters, milliseconds_per_picture
from core.evaluation_clip import FOLDER, FOLDER_VARIABLE
from core.events import EventWriter, Progress
from core.files import replacing
from core.judges import Judge, Judgements, load_judge
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
    judge
        Judges the pictures.
    captions
        What is drawn.
    seed
        The job's.
    folder
        Where judgements are kept; of one teacher, student, caption set and seed only.
    progress, stop
        Where to report, and whether to stop between two batches.
    """

    teacher: Artist
    student: Artist
    judge: Judge
    captions: CaptionSet
    seed: int
    folder: Path
    progress: Progress
    stop: StopRequest

    def measure(self, split: Split) -> dict[str, Any]:
        """Return the scores of both models on one split, at their own steps and at all further ones."""
        reference = self._judged(split, "reference", self.teacher)
        values = {
            "pictures": self.teacher.evaluation.samples,
            **self._compare(split, reference, self.teacher, self.student),
        }
        if self.teacher.evaluation.more_steps:
            values["by_steps"] = {
                str(steps): self._compare(
                    split, reference, self.teacher.at_steps(steps), self.student.at_steps(steps), f"-{steps}"
                )
                for steps in self.teacher.evaluation.more_steps
            }
        return values

    def _compare(
        self, split: Split, reference: Judgements, teacher: Artist, student: Artist, suffix: str = ""
    ) -> dict[str, Any]:
        """Return scores and intervals of both models; `suffix` tells files of several step counts apart."""
        values: dict[str, Any] = {"unet_calls": {}, "intervals": {}}
        for name, artist in (("teacher", teacher), ("student", student)):
            judged = self._judged(split, name + suffix, artist)
            values[name], values["intervals"][name] = score_pictures(
                judged,
                reference,
                self.teacher.evaluation.bootstrap_resamples,
                derived_seed(self.seed, "bootstrap", split),
            )
            values["unet_calls"][name] = artist.unet_calls
        return values

    def _judged(self, split: Split, name: str, artist: Artist) -> Judgements:
        """Draw a split's captions and judge the pictures, unless that has been done."""
        path = self.folder / f"{split}-{name}.safetensors"
        if not path.exists():
            parts = list(self._judged_batches(split, name, artist))
            with replacing(path) as temporary:
                joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
                save_file(joined, temporary)
        return load_file(path)

    def _judged_batches(self, split: Split, name: str, artist: Artist) -> Iterator[Judgements]:
        texts = self._texts(split)
        seeds = self._seeds(split, "reference" if name == "reference" else "evaluation")
        for start in range(0, len(texts), artist.evaluation.batch_size):
            self.stop.check()
            batch = slice(start, start + artist.evaluation.batch_size)
            yield self.judge.look(artist.draw(texts[batch], seeds[batch]), texts[batch])
            self.progress.advance(len(texts[batch]))

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


def evaluate(
    teacher: Artist,
    student: Artist,
    captions: CaptionSet,
    seed: int,
    folder: Path,
    events: EventWriter,
    stop: StopRequest,
) -> dict[str, Any]:
    """Measure a student beside its teacher.

    Parameters
    ----------
    teacher, student, captions, seed, folder, stop
        As in `Evaluation`.
    events
        Where to report.

    Returns
    -------
    dict
        Under ``teacher`` and ``student`` what each costs; under ``drawn``, ``text_only`` and ``held_out`` the
        scores of both on such captions, as far as there are any, with their ``intervals``, their
        ``unet_calls`` for a picture, and the same again ``by_steps``.
    """
    costs = measure_costs({"teacher": teacher, "student": student})
    return costs | judge_pictures(teacher, student, captions, seed, folder, events, stop)


def judge_pictures(
    teacher: Artist,
    student: Artist,
    captions: CaptionSet,
    seed: int,
    folder: Path,
    events: EventWriter,
    stop: StopRequest,
) -> dict[str, Any]:
    """Return the scores of `evaluate`; none where there is nothing to judge pictures by."""
    judge = load_judge(teacher.teacher, teacher.evaluation)
    if judge is None:
        events.warning(
            f"the teacher comes with no {FOLDER}, and {FOLDER_VARIABLE} names none: pictures are not judged"
        )
        return {}
    splits = [split for split, size in captions.splits.items() if size]
    sets_of_pictures = len(splits) * (3 + 2 * len(teacher.evaluation.more_steps))
    samples = teacher.evaluation.samples
    done = len(list(folder.glob("*.safetensors"))) * samples
    progress = Progress(events, "evaluation", "pictures", sets_of_pictures * samples, done)
    evaluation = Evaluation(teacher, student, judge, captions, seed, folder, progress, stop)
    return {split: evaluation.measure(split) for split in splits}


def measure_costs(artists: dict[str, Artist]) -> dict[str, dict[str, float]]:
    """Return each model's parameters, multiply-accumulates of one U-Net pass, and time per picture."""
    times = milliseconds_per_picture([partial(artist.draw, [""], [0]) for artist in artists.values()])
    costs = {}
    for (name, artist), milliseconds in zip(artists.items(), times, strict=True):
        config, prompt_tokens = artist.unet.config, artist.teacher.tokenizer.model_max_length
        costs[name] = {
            "parameters": count_parameters(config),
            "gmacs": count_multiply_accumulates(config, prompt_tokens) / 1e9,
            "milliseconds_per_picture": milliseconds,
        }
    return costs
