"""The model card that is shipped with the weights: data, recipe, measured quality, licences."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from teachers.emoji_64 import clip, unet, vae
from teachers.emoji_64.captions import BACKGROUNDS, SIZES
from teachers.emoji_64.concepts import PACKAGES, Concept
from teachers.emoji_64.measure import GUIDANCE_SCALE, STEPS

TEMPLATE = Path(__file__).with_name("model_card.md")


def write_model_card(concepts: Sequence[Concept], quality: dict[str, float], weights: Path) -> None:
    """Write ``README.md`` into the folder of the weights.

    Parameters
    ----------
    concepts
        What the teacher was trained on.
    quality
        What `teachers.emoji_64.measure.measure` returned.
    weights
        The pipeline's folder.
    """
    groups = Counter(concept.category for concept in concepts)
    card = TEMPLATE.read_text(encoding="utf-8").format(
        **quality,
        parameters=sum(p.numel() for p in unet.build_unet().parameters()) / 1e6,
        concepts=len(concepts),
        colours=len(BACKGROUNDS),
        captions=len(concepts) * len(SIZES) * (len(BACKGROUNDS) + 1),
        groups="\n".join(f"| {name} | {count} |" for name, count in groups.most_common()),
        steps=STEPS,
        guidance=GUIDANCE_SCALE,
        clip_steps=clip.SETTINGS.steps,
        clip_batch=clip.CONCEPTS_PER_BATCH * clip.VARIANTS_PER_CONCEPT,
        vae_steps=vae.SETTINGS.steps,
        vae_batch=vae.BATCH_SIZE,
        unet_steps=unet.SETTINGS.steps,
        unet_batch=unet.BATCH_SIZE,
        gamma=unet.MIN_SNR_GAMMA,
        floor=unet.WEIGHT_FLOOR,
        blank=unet.BLANK_PROBABILITY,
        pictures=unet.SETTINGS.steps * unet.BATCH_SIZE,
        pictures_version=PACKAGES["emoji-datasource-google"],
        names_version=PACKAGES["emojibase-data"],
    )
    (weights / "README.md").write_text(card, encoding="utf-8")
