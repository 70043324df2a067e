"""The CLIP that judges pictures: in the teacher's folder ``evaluation_clip/``, or else the machine's own.

Axes: B batch, C channels, H W height and width, D embedding.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer

from core.errors import BadTeacherError, CoreError
from core.frozen import load_frozen
from core.teacher import Teacher
from core.teacher_folder import TeacherInfo, read_json
from core.weight_files import has_weights

FOLDER = "evaluation_clip"
FOLDER_VARIABLE = "CONDENSER_EVALUATION_CLIP"
CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
NORMALISATION = ("image_mean", "image_std")


@dataclass(frozen=True)
class EvaluationClip:
    """A CLIP with the preprocessing that its folder describes.

    Attributes
    ----------
    model, tokenizer
        The two towers, and the tokenizer of the text tower.
    size
        Side of the pictures that the image tower takes.
    mean, std
        Normalisation of each colour.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    size: int
    mean: list[float]
    std: list[float]

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before a softmax takes them for logits."""
        return self.model.logit_scale.exp().item()

    @torch.no_grad()
    def embed_pictures(self, pictures_BCHW: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings, BD, of uint8 pictures."""
        pictures = pictures_BCHW.to(self.model.device).float() / 255
        if pictures.shape[-1] != self.size:
            pictures = F.interpolate(pictures, (self.size, self.size), mode="bicubic", antialias=True).clamp(
                0, 1
            )
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        features = self.model.get_image_features(pixel_values=(pictures - mean) / std)
        return F.normalize(features.pooler_output, dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit embeddings, BD, of captions."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        features = self.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask)
        return F.normalize(features.pooler_output, dim=-1)


def find_evaluation_clip(teacher: TeacherInfo, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the CLIP that judges a teacher's pictures; None if there is none.

    Raises
    ------
    BadTeacherError
        If the teacher has one from which files are missing.
    CoreError
        If the teacher has none, and files are missing from the one that the environment names.
    """
    own = teacher.path / FOLDER
    if own.is_dir():
        if missing := _missing(own):
            raise BadTeacherError(
                f"{FOLDER} of the teacher {teacher.id} has no {' and no '.join(missing)}",
                "complete the CLIP that judges the teacher's pictures, or take its folder away",
            )
        return own
    named = environment.get(FOLDER_VARIABLE)
    if not named:
        return None
    if missing := _missing(Path(named)):
        raise CoreError(
            f"{named}, which {FOLDER_VARIABLE} names, has no {' and no '.join(missing)}",
            f"let {FOLDER_VARIABLE} name a CLIP's folder as transformers' save_pretrained writes it",
        )
    return Path(named)


def _missing(folder: Path) -> list[str]:
    """Return what a CLIP cannot be loaded without and its folder lacks."""
    missing = [name for name in (CONFIG, PREPROCESSING) if not (folder / name).is_file()]
    if PREPROCESSING not in missing:
        told = read_json(folder / PREPROCESSING)
        missing += [f"{setting} in {PREPROCESSING}" for setting in NORMALISATION if setting not in told]
    return missing if has_weights(folder) else [*missing, "safetensors weights"]


def load_evaluation_clip(
    teacher: Teacher, environment: Mapping[str, str] = os.environ
) -> EvaluationClip | None:
    """Load the CLIP in a teacher's folder or the one that the environment names; None if there is neither.

    A folder without a tokenizer of its own uses the teacher's.
    """
    folder = find_evaluation_clip(teacher.info, environment)
    if folder is None:
        return None
    mean, std = (read_json(folder / PREPROCESSING)[setting] for setting in NORMALISATION)
    model = load_frozen(CLIPModel, folder).to(teacher.device)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    return EvaluationClip(
        model=model,
        tokenizer=CLIPTokenizer.from_pretrained(folder) if has_tokenizer else teacher.tokenizer,
        size=model.config.vision_config.image_size,
        mean=mean,
        std=std,
    )
