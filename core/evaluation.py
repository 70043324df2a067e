"""How good a student is beside its teacher: pictures of drawn and of text-only captions, judged by a CLIP.

Both draw the same captions from the same seeds. They are compared with what the teacher draws of these
captions from other seeds, so that the teacher's own distance, which is not zero, is the best one to hope for.

Axes: B pictures, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from core.artist import Artist
from core.captions import CaptionSet
from core.cost import count_multiply_accumulates, count_parameters, milliseconds_per_picture
from core.evaluation_clip import EvaluationClip, load_evaluation_clip
from core.events import EventWriter, Progress
from core.frechet import frechet_distance
from core.randomness import derived_seed
from core.references import References, load_references
from core.stopping import StopRequest

PICTURES_PER_CAPTION = 3  # teacher, student, and the teacher from another seed


@dataclass(frozen=True)
class Judge:
    """What pictures are judged by."""

    clip: EvaluationClip
    references: References | None

    def embed_split(
        self,
        teacher: Artist,
        student: Artist,
        texts: Sequence[str],
        seeds: Sequence[int],
        other_seeds: Sequence[int],
        progress: Progress,
        stop: StopRequest,
    ) -> dict[str, torch.Tensor]:
        """Draw captions and embed them: by both models from `seeds`, for reference from `other_seeds`."""
        drawings = {
            "teacher": (teacher, seeds),
            "student": (student, seeds),
            "reference": (teacher, other_seeds),
        }
        parts: dict[str, list[torch.Tensor]] = {kind: [] for kind in (*drawings, "texts")}
        for start in range(0, len(texts), teacher.evaluation.batch_size):
            batch = slice(start, start + teacher.evaluation.batch_size)
            parts["texts"].append(self.clip.embed_texts(texts[batch]).cpu())
            for kind, (artist, artist_seeds) in drawings.items():
                stop.check()
                pictures = artist.draw(texts[batch], artist_seeds[batch])
                parts[kind].append(self.clip.embed_pictures(pictures).cpu())
                progress.advance(len(pictures))
        return {kind: torch.cat(embeddings) for kind, embeddings in parts.items()}

    def scores(
        self, pictures_BD: torch.Tensor, embeddings: dict[str, torch.Tensor], texts: Sequence[str]
    ) -> dict[str, float]:
        """Return the scores of a model's embedded pictures of these captions."""
        return {
            "frechet_distance": frechet_distance(pictures_BD.numpy(), embeddings["reference"].numpy()),
            "clip_score": (pictures_BD * embeddings["texts"]).sum(dim=1).mean().item(),
            **(self.references.nearest_shares(pictures_BD, texts) if self.references else {}),
        }


def evaluate(
    teacher: Artist,
    student: Artist,
    captions: CaptionSet,
    seed: int,
    events: EventWriter,
    stop: StopRequest,
) -> dict[str, Any]:
    """Measure a student beside its teacher.

    Returns
    -------
    dict
        Under ``teacher`` and ``student`` what each costs; under ``drawn`` and ``text_only`` its scores.
    """
    values: dict[str, Any] = {**measure_costs({"teacher": teacher, "student": student})}
    clip = load_evaluation_clip(teacher.teacher)
    if clip is None:
        events.warning("the teacher comes with no evaluation_clip: pictures are not judged")
        return values
    judge = Judge(clip, load_references(teacher.teacher.info.path))
    count = teacher.evaluation.samples
    splits = {"drawn": captions.drawn, "text_only": captions.text_only}
    splits = {name: indices for name, indices in splits.items() if len(indices)}
    progress = Progress(events, "evaluation", "pictures", PICTURES_PER_CAPTION * count * len(splits))
    for name, indices in splits.items():
        texts = captions.texts(choose_captions(indices, count, derived_seed(seed, "evaluation", name)))
        embeddings = judge.embed_split(
            teacher,
            student,
            texts,
            seeds=[derived_seed(seed, "evaluation", name, number) for number in range(count)],
            other_seeds=[derived_seed(seed, "reference", name, number) for number in range(count)],
            progress=progress,
            stop=stop,
        )
        values[name] = {
            "pictures": count,
            "teacher": judge.scores(embeddings["teacher"], embeddings, texts),
            "student": judge.scores(embeddings["student"], embeddings, texts),
        }
    return values


def choose_captions(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose captions in a random order, each as often as any other to within one."""
    order = np.random.default_rng(seed).permutation(indices)
    return np.resize(order, count)


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
