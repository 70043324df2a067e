"""What a teacher's folder, in the diffusers layout, says of it.

Only JSON files, the model card and the headers of safetensors files are read, so that the API process, which
has no torch, can check students against a teacher.
"""

import errno
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from core.caption_sources import NO_NUL
from core.errors import BadTeacherError
from core.families import (
    Family,
    FamilyName,
    check_part_config,
    check_pipeline,
    check_scheduler_config,
    find_family,
    parts_of,
)
from core.revisions import revision_of
from core.teacher_files import INDEX
from core.unet_layout import check_unet
from core.unet_limits import DEFAULTS, check_latents, check_numbers
from core.weight_files import count_parameters, unet_dtype, weight_files

PROMPT_TOKENS = 77  # the context of the text encoders of all families, where a folder does not say
# What the system says of how a folder is. Anything else may be over when it is asked again.
LASTING = frozenset(
    (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
)
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]  # nor half a surrogate pair, which is no text


class TeacherInfo(BaseModel):
    """What is known of a teacher without loading it.

    Attributes
    ----------
    id
        The name by which a job asks for it.
    path
        The pipeline's folder.
    family
        How prompts are encoded and what the U-Net takes.
    unet_config
        The U-Net's config, from which students are derived.
    parameters
        Parameters of the U-Net, counted from the headers of its weight files.
    prompt_tokens
        Tokens that every prompt is padded to.
    licence
        The licence's short name, where ``teacher.json`` or the model card says so.
    licence_is_other
        Whether that is a name that the Hub does not have, by the model card's own words.
    title, description
        For people, where the folder has them.
    caption_set
        The file of captions beside the teacher, where it has one.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    family: FamilyName
    unet_config: dict[str, Any]
    parameters: int
    prompt_tokens: int = PROMPT_TOKENS
    licence: str | None = None
    licence_is_other: bool = False
    title: str | None = None
    description: str | None = None
    caption_set: Path | None = None

    @cached_property
    def revision(self) -> str:
        """A hash that changes with whatever is loaded of the teacher.

        It is made when somebody asks: weights are read whole for it, which takes seconds for each teacher,
        and most that ask for a teacher do not ask for this.
        """
        return revision_of(self.path, parts_of(self.family))


class _About(BaseModel):
    """What a ``teacher.json`` may say; whatever else stands there is somebody else's."""

    id: Text | None = None
    name: Text | None = None
    description: Text | None = None
    licence: Text | None = None
    caption_set: Text | None = None


@dataclass(frozen=True)
class TeacherConfigs:
    """What the JSON files of a pipeline folder say, once they were found good.

    Attributes
    ----------
    family
        Its family.
    unet_config
        The U-Net's config, with diffusers' defaults for what it does not say.
    prompt_tokens
        Tokens that every prompt is padded to.
    """

    family: Family
    unet_config: dict[str, Any]
    prompt_tokens: int


def read_teacher(path: Path) -> TeacherInfo:
    """Read one pipeline folder.

    Raises
    ------
    BadTeacherError
        If it is no pipeline of a known family, needs code of its own, has no safetensors weights, or a U-Net
        of a dtype that no student can be saved in, or if a file of it cannot be read.
    OSError
        If a file of it cannot be read for a reason that may pass.
    """
    try:
        return _read_folder(path)
    except (OSError, ValueError) as error:
        if may_pass(error):
            raise
        raise BadTeacherError(
            f"{path.name} cannot be read: {error}", "check that the folder is whole and may be read"
        ) from error


def _read_folder(path: Path) -> TeacherInfo:
    configs = read_configs(path)
    for part in configs.family.parts:
        if (path / part).is_dir() and not part.startswith("tokenizer"):
            weight_files(path / part)
    unet_dtype(path)
    about = _read_about(path)
    licence, licence_is_other = _licence_of_card(path / "README.md")
    return TeacherInfo(
        id=path.name if about.id is None else about.id,
        path=path,
        family=configs.family.name,
        unet_config=configs.unet_config,
        parameters=sum(map(count_parameters, weight_files(path / "unet"))),
        prompt_tokens=configs.prompt_tokens,
        licence=about.licence or licence,
        licence_is_other=licence_is_other and not about.licence,
        title=about.name,
        description=about.description,
        caption_set=None if about.caption_set is None else _inside(path, about.caption_set),
    )


def read_configs(path: Path) -> TeacherConfigs:
    """Check a pipeline by its JSON files alone, as far as one can without its weights.

    Raises
    ------
    BadTeacherError
        If it is no pipeline of a known family, or needs code of its own.
    """
    index = read_json(path / INDEX)
    check_pipeline(index, path.name)
    unet_config = DEFAULTS | read_json(path / "unet" / "config.json")
    try:
        check_numbers(unet_config)
        check_unet(unet_config)
        vae = path / "vae" / "config.json"
        check_latents(unet_config, read_json(vae) if vae.is_file() else None, path.name)
        family = find_family(index, unet_config)
        for part in family.parts:
            _check_part_configs(path / part)
        if (path / "scheduler" / "scheduler_config.json").is_file():
            check_scheduler_config(read_json(path / "scheduler" / "scheduler_config.json"), path.name)
        return TeacherConfigs(family, unet_config, _prompt_tokens(path / "text_encoder"))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BadTeacherError(
            f"{path.name} has a config that cannot be understood: {error!r}",
            "a teacher is a folder as diffusers' save_pretrained writes it",
        ) from error


def _check_part_configs(part: Path) -> None:
    """Refuse a part that asks for code."""
    for name in ("config.json", "tokenizer_config.json"):
        if (part / name).is_file():
            check_part_config(read_json(part / name), part.name, part.parent.name)


def _prompt_tokens(text_encoder: Path) -> int:
    config = text_encoder / "config.json"
    return (
        int(read_json(config).get("max_position_embeddings", PROMPT_TOKENS))
        if config.is_file()
        else PROMPT_TOKENS
    )


def _read_about(path: Path) -> _About:
    if not (path / "teacher.json").is_file():
        return _About()
    try:
        return _About.model_validate(read_json(path / "teacher.json"))
    except ValidationError as error:
        raise BadTeacherError(
            f"{path.name}/teacher.json has fields of the wrong type: {error}",
            f"{', '.join(_About.model_fields)} are texts",
        ) from error


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a teacher's own words say lies beside it."""
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BadTeacherError(f"{folder.name}/teacher.json names a file outside of its folder: {name}")
    return folder / name


def _licence_of_card(card: Path) -> tuple[str | None, bool]:
    """Return the licence that a model card's front matter names, and whether it is one of a name of its own.

    Licences that the Hub has no name for stand there as ``license: other`` and ``license_name: …``.
    """
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    if not lines or lines[0].strip() != "---":
        return None, False
    front_matter = {
        key: value.strip().strip("'\"")
        for line in itertools.takewhile(lambda line: line.strip() != "---", lines[1:])
        for key, _, value in [line.partition(":")]
    }
    licence = front_matter.get("license") or None
    name = front_matter.get("license_name") if licence == "other" else None
    return name or licence, bool(name)


def part_files(teacher: TeacherInfo) -> dict[str, list[Path]]:
    """Return the weight files of every part of a teacher but its U-Net."""
    names = ("text_encoder", "text_encoder_2", "vae")
    return {name: weight_files(teacher.path / name) for name in names if (teacher.path / name).is_dir()}


def part_parameters(teacher: TeacherInfo) -> dict[str, int]:
    """Return the parameters of every part of a teacher but its U-Net."""
    return {name: sum(map(count_parameters, files)) for name, files in part_files(teacher).items()}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a teacher."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if may_pass(error):
            raise
        raise BadTeacherError(
            f"{path.parent.name}/{path.name} cannot be read: {error}",
            "a teacher is a folder as diffusers' save_pretrained writes it",
        ) from error
    if not isinstance(content, dict):
        raise BadTeacherError(f"{path.parent.name}/{path.name} holds no JSON object")
    return content


def may_pass(error: Exception) -> bool:
    """Tell whether an error of reading may be over when the file is asked for again."""
    return isinstance(error, OSError) and error.errno not in LASTING
