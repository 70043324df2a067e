"""The weights that an estimate counts are those that an export copies."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.export import _copy_pipeline
from core.shipped_index import shipped_index, shipped_weights

CHECKER = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
EXTRACTOR = {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
ENCODER = {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}
FOREIGN = {"image_encoder": ["my_code", "Encoder"]}


@pytest.mark.parametrize(
    ("named", "added"),
    [
        ({}, set()),
        (CHECKER | EXTRACTOR, {"safety_checker"}),
        (CHECKER, set()),
        (ENCODER, {"image_encoder"}),
        (FOREIGN, set()),
        ({"image_encoder": [None, None]}, set()),
    ],
)
def test_the_weights_of_what_the_shipped_index_keeps_are_copied(
    named: dict[str, Any], added: set[str], teachers_dir: Path, tmp_path: Path
) -> None:
    teacher = shutil.copytree(teachers_dir / "weights", tmp_path / "teacher")
    for name in ("safety_checker", "image_encoder", "text_encoder_2"):
        (teacher / name).mkdir()
        (teacher / name / "config.json").write_text("{}")
        for file in ("model.safetensors", "model.fp16.safetensors"):
            save_file({"weight": torch.zeros(100)}, teacher / name / file)
    (teacher / "feature_extractor").mkdir()
    (teacher / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    index = json.loads((teacher / "model_index.json").read_text())
    index = {name: entry for name, entry in index.items() if entry != [None, None]}
    (teacher / "model_index.json").write_text(json.dumps(index | named))

    (tmp_path / "student").mkdir()
    _copy_pipeline(teacher, tmp_path / "student")
    copied = {file.relative_to(tmp_path / "student") for file in tmp_path.glob("student/*/*.safetensors")}
    assert {file.relative_to(teacher) for file in shipped_weights(teacher)} == copied
    assert {file.parent.name for file in copied} == {"text_encoder", "vae"} | added
    assert json.loads((tmp_path / "student" / "model_index.json").read_text()) == shipped_index(teacher)
