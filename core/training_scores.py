"""Scores of a student while it is trained: a distance to its teacher, from few pictures, now and then.

Every score is of the same captions from the same seeds, and the teacher's pictures are judged once and kept
in the cache, so that a score costs no more than the student's own drawing. A Fréchet distance of few pictures
is far above that of many, for the teacher as for its students. So the teacher's own, of as many pictures, is
told beside it, and neither can be compared with what is measured at the end.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import UNet2DConditionModel

from core.artist import Artist
from core.captions import CaptionSet, Split
from core.evaluation import Evaluation
from core.events import EventWriter
from core.judges import Judge, load_judge
from core.randomness import derived_seed
from core.samples import PICTURES_AT_ONCE
from core.scores import build_scores
from core.spec import DistillationSpec, EvaluationSpec
from core.stopping import Stopped, StopRequest
from core.teacher import Teacher

SCORE = "frechet_distance"

TrainingScore = dict[str, float]
"""What is told of one step, by names of metrics: for each split ``frechet_distance_{split}``, the ends of its
interval with ``_low`` and ``_high`` behind it, and the teacher's own distance with ``_teacher``."""


@dataclass(frozen=True)
class TrainingScorer:
    """Scores the students of one job.

    Attributes
    ----------
    teacher, captions, spec
        The job's.
    cache
        Shared between jobs: the judgements of the teacher's pictures.
    events, stop
        Where to report, and whether to stop between two batches of pictures.
    """

    teacher: Teacher
    captions: CaptionSet
    spec: DistillationSpec
    cache: Path
    events: EventWriter
    stop: StopRequest

    def score(
        self, drawing: EvaluationSpec, average: UNet2DConditionModel, step: int
    ) -> TrainingScore | None:
        """Score a student and report it.

        The judge is loaded for this alone, for a training wants the accelerator's memory for itself.

        Parameters
        ----------
        drawing
            How the student draws.
        average
            Its averaged weights.
        step
            Steps of the job that it has been trained for.

        Returns
        -------
        dict or None
            None where there is nothing to judge by, or where a stop was asked for before all was drawn.
        """
        judge = load_judge(self.teacher, self.spec.evaluation)
        if judge is None:
            return None
        evaluation = Evaluation(
            Artist(self.teacher, self.teacher.unet, self._few(self.spec.evaluation)),
            Artist(self.teacher, average, self._few(drawing)),
            self.captions,
            self.spec.seed,
            self.cache,
            keeps_student=False,
        )
        score: TrainingScore = {}
        try:
            for split, size in self.captions.splits.items():
                if size:
                    score |= self._score_split(evaluation, split, judge)
        except Stopped:
            return None
        self.events.write("metrics", step=step, values=score)
        return score

    def _few(self, drawing: EvaluationSpec) -> EvaluationSpec:
        at_once = min(drawing.batch_size, PICTURES_AT_ONCE)  # no more memory than the sample grids take
        few = {"samples": drawing.score_samples, "more_steps": [], "batch_size": at_once}
        return drawing.model_copy(update=few)

    def _score_split(self, evaluation: Evaluation, split: Split, judge: Judge) -> TrainingScore:
        sets = evaluation.picture_sets(split)
        judged = {name: one.judgements(judge, self.stop) for name, one in sets.items()}
        teacher, student = (
            build_scores(judged[name], judged["reference"], self.stop.check)[SCORE]
            for name in ("teacher", "student")
        )
        name = f"{SCORE}_{split}"
        told = {name: student.value, f"{name}_teacher": teacher.value}
        if resamples := self.spec.evaluation.bootstrap_resamples:
            seed = derived_seed(self.spec.seed, "bootstrap", split)
            told[f"{name}_low"], told[f"{name}_high"] = student.interval(resamples, seed)
        return told
