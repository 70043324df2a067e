"""A teacher small enough to distil in a test: a real Stable Diffusion pipeline folder with random weights."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from core.batches import BatchSource
from core.captions import CaptionSet, prepare_captions
from core.embeddings import CaptionEmbeddings
from core.events import EventWriter
from core.latents import LatentSet
from core.spec import DistillationSpec, MethodSpec
from core.stopping import StopRequest
from core.teacher import Teacher, load_teacher
from core.teacher_folder import TeacherInfo, read_teacher

CONTEXT = 12
PICTURE = 32
NAMES = ["cat", "dog", "fish", "bird", "tree", "house", "car", "star"]
CAPTIONS = [f"{size} {name}" for size in ("small", "large") for name in NAMES]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def teachers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of teachers with one in it, ``emoji-64``."""
    directory = tmp_path_factory.mktemp("teachers")
    write_tiny_teacher(directory / "weights")
    return directory


@pytest.fixture
def copied_teachers(teachers_dir: Path, tmp_path: Path) -> Path:
    """The same as ``teachers_dir``, to be changed by one test."""
    return shutil.copytree(teachers_dir, tmp_path / "teachers")


@pytest.fixture(scope="session")
def teacher_info(teachers_dir: Path) -> TeacherInfo:
    return read_teacher(teachers_dir / "weights")


@pytest.fixture(scope="session")
def teacher(teacher_info: TeacherInfo) -> Teacher:
    return load_teacher(teacher_info, torch.device("cpu"))


@pytest.fixture(scope="session")
def sd14_config() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("sd14_unet_config.json").read_text())


@pytest.fixture(scope="session")
def sd21_config() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("sd21_unet_config.json").read_text())


@pytest.fixture(scope="session")
def sdxl_config() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("sdxl_unet_config.json").read_text())


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., DistillationSpec]:
    return small_spec


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    """Twelve captions, the first five of them drawn."""
    texts = CAPTIONS[:12]
    spec = small_spec(captions={"kind": "inline", "texts": texts}, drawn={"texts": texts[:5]})
    return prepare_captions(spec, tmp_path / "captions", [])


@pytest.fixture
def batches(teacher: Teacher, captions: CaptionSet) -> BatchSource:
    """Batches of five pictures that nobody drew, in two shards."""
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return BatchSource(
        latents=LatentSet([latents[:3], latents[3:]], 3, torch.from_numpy(captions.drawn)),
        embeddings=CaptionEmbeddings(teacher, captions, captions.drawn),
        caption_count=len(captions),
        method=MethodSpec(),
        timesteps=1_000,
        seed=3,
        device=torch.device("cpu"),
    )


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with closing(EventWriter(tmp_path / "events.jsonl")) as writer:
        yield writer


class StopAfter(StopRequest):
    """Asks to stop at the n-th check."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        self.requested = self.left < 0
        super().check()


def small_spec(**changes: Any) -> DistillationSpec:
    """Return the specification of a job of seconds; keyword arguments replace whole sections."""
    sections: dict[str, Any] = {
        "teacher": "emoji-64",
        "student": "b-small",
        "captions": {"kind": "inline", "texts": CAPTIONS},
        "drawn": {"count": 6},
        "latents": {"sampler": "pndm", "steps": 2, "guidance_scale": 2.0, "batch_size": 4},
        "training": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
            "sample_every": 3,
            "log_every": 2,
        },
        "evaluation": {
            "samples": 4,
            "steps": 2,
            "guidance_scale": 2.0,
            "batch_size": 4,
            "bootstrap_resamples": 10,
        },
        "seed": 7,
    }
    return DistillationSpec.model_validate(sections | changes)


def write_tiny_teacher(folder: Path) -> None:
    """Write a Stable Diffusion pipeline in miniature, with what a bundled teacher has beside it."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    clip = tiny_clip(tokenizer)
    text_encoder = CLIPTextModel(clip.config.text_config)
    StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=tiny_vae(),
        unet=tiny_unet(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            set_alpha_to_one=False,
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    clip.save_pretrained(folder / "evaluation_clip")
    (folder / "evaluation_clip" / "preprocessor_config.json").write_text(
        json.dumps({"size": PICTURE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    (folder / "LICENSE.txt").write_text("The licence of the tiny teacher.\n")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    (folder / "teacher.json").write_text(
        json.dumps({"id": "emoji-64", "name": "Tiny", "licence": "apache-2.0", "caption_set": "captions.txt"})
    )
    save_file(
        {"embeddings": torch.randn(len(NAMES), clip.config.projection_dim)},
        folder / "references.safetensors",
    )
    (folder / "references.json").write_text(
        json.dumps([{"name": name, "captions": [f"small {name}", f"large {name}"]} for name in NAMES])
    )


def tiny_tokenizer() -> CLIPTokenizer:
    start, end = "<|startoftext|>", "<|endoftext|>"
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[start, end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(CAPTIONS, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=CONTEXT)


def tiny_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = shape | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shape | {"image_size": PICTURE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=PICTURE,
    )


def tiny_unet() -> UNet2DConditionModel:
    """Four levels in the pattern of Stable Diffusion 1.4, the innermost wider than the one before it."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(20, 40, 40, 60),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=32,
    )
