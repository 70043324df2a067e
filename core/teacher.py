"""Loading a teacher: the parts of a Stable Diffusion pipeline folder, frozen, with what they need to be used.

Weights are read from safetensors only and no code of the folder ever runs. Everything here runs under
``torch.no_grad``, not in inference mode, because the student's loss takes the teacher's outputs.

Axes: B batch, C channels, H W height and width, L tokens, D width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from core.errors import BadTeacherError
from core.registry import TeacherInfo, find_teacher, read_teacher, weight_files

HUB_FILES = ["*.json", "*.txt", "*.safetensors", "LICENSE*", "LICENCE*", "README.md"]
HUB_VARIANTS = ["*.fp16.safetensors", "*.non_ema.safetensors"]


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher of the Stable Diffusion 1 family.

    Attributes
    ----------
    info
        What the registry knows of it.
    tokenizer, text_encoder, vae, unet
        The pipeline's parts.
    scheduler_config
        The noise schedule and prediction type, which the student shares.
    precision
        What U-Nets, its own and its students', compute in.
    """

    info: TeacherInfo
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler_config: dict[str, Any]
    precision: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return self.unet.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, H and W of a latent."""
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    def noise_schedule(self) -> torch.Tensor:
        """Return ᾱ_t, the share of a picture's variance left at each of the T timesteps."""
        return DDPMScheduler.from_config(self.scheduler_config).alphas_cumprod.to(self.device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the embeddings of prompts, BLD, padded to the tokenizer's context as in the pipeline."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.device, non_blocking=True))[0]

    @torch.no_grad()
    def decode(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the pictures of latents, BCHW, uint8."""
        pictures = self.vae.decode(latents_BCHW / self.vae.config.scaling_factor, return_dict=False)[0]
        return ((pictures / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def resolve_teacher(reference: str, directories: Sequence[Path]) -> TeacherInfo:
    """Find the teacher that a specification names.

    Parameters
    ----------
    reference
        ``owner/name@revision`` of the Hugging Face Hub, the path of a pipeline folder, or a registered id.
    directories
        Folders of registered teachers.
    """
    if "@" in reference:
        repository, revision = reference.rsplit("@", maxsplit=1)
        return read_teacher(_download(repository, revision)).model_copy(update={"id": repository})
    if (Path(reference) / "model_index.json").is_file():
        return read_teacher(Path(reference))
    return find_teacher(reference, directories)


def load_teacher(info: TeacherInfo, device: torch.device, precision: torch.dtype = torch.float32) -> Teacher:
    """Load a teacher's parts onto a device, their weights in float32.

    Raises
    ------
    BadTeacherError
        If a part is missing, damaged, or not what its config says.
    """
    try:
        return Teacher(
            info=info,
            tokenizer=CLIPTokenizer.from_pretrained(info.path / "tokenizer"),
            text_encoder=load_frozen(CLIPTextModel, info.path / "text_encoder").to(device),
            vae=load_frozen(AutoencoderKL, info.path / "vae").to(device),
            unet=load_frozen(UNet2DConditionModel, info.path / "unet").to(device),
            scheduler_config=DDPMScheduler.load_config(info.path / "scheduler"),
            precision=precision,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadTeacherError(
            f"teacher {info.id} cannot be loaded: {error}",
            "diffusers.StableDiffusionPipeline.from_pretrained must be able to load the folder",
        ) from error


def load_frozen(model_class: type[Any], folder: Path) -> Any:
    """Load one model of a teacher's folder, whole, in float32 and never to be trained."""
    weight_files(folder)  # says so if there is nothing but pickled weights
    model, loading = model_class.from_pretrained(
        folder, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
    )
    if missing := sorted(loading["missing_keys"]):
        raise BadTeacherError(f"{folder.name} lacks {len(missing)} weights, among them {missing[0]}")
    return model.eval().requires_grad_(False)


def _download(repository: str, revision: str) -> Path:
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=HUB_VARIANTS
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadTeacherError(
            f"{repository} at revision {revision} cannot be fetched from the Hub: {error}",
            "check the name, the revision, the network, and that its licence has been accepted",
        ) from error
    return Path(folder)
