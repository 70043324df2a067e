"""Of what lies where a teacher is, only its pipeline is fetched."""

import pytest

from core.errors import BadTeacherError
from core.teacher_files import choose_files, is_config

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}
PIPELINE = [
    "LICENSE.md",
    "License.txt",
    "README.md",
    "evaluation_clip/model.safetensors",
    "license",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
OTHERS = [
    "LICENSE.BIN",
    "LICENSES/MIT.txt",
    "my-license.txt",
    "safety_checker/model.safetensors",
    "sd-v1-4.safetensors",
    "train.py",
    "unet/deeper/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/modeling.py",
    "vae/diffusion_pytorch_model.PT",
]


def test_only_the_pipeline_is_chosen() -> None:
    assert choose_files([*OTHERS, *PIPELINE], INDEX) == PIPELINE


@pytest.mark.parametrize("pickle", ["model.bin", "model.pt", "model.ckpt", "model.PTH", "model.pkl"])
def test_a_part_of_pickles_alone_is_refused(pickle: str) -> None:
    names = [name for name in PIPELINE if not name.startswith("vae/diffusion")]
    with pytest.raises(BadTeacherError, match=rf"vae has no safetensors weights, only {pickle}: a pickle"):
        choose_files([*names, f"vae/{pickle}"], INDEX)


def test_a_part_of_a_variant_alone_is_told_how_to_become_a_plain_one() -> None:
    names = [name for name in PIPELINE if not name.startswith("vae/diffusion")]
    with pytest.raises(BadTeacherError, match=r"vae has .* only as a variant, model\.fp16\.safet") as caught:
        choose_files([*names, "vae/model.fp16.safetensors", "vae/model.bin"], INDEX)
    assert "variant=…" in caught.value.hint


def test_configs_are_the_small_files_that_say_what_a_pipeline_is() -> None:
    assert [name for name in PIPELINE if is_config(name)] == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "vae/config.json",
    ]
