"""Which files of a teacher that lies elsewhere are fetched, and which never are; free of torch.

Repositories and buckets also hold single-file checkpoints, other tools' formats and pickles, many times the
pipeline's size. Only names on these lists are ever fetched.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from core.errors import BadTeacherError
from core.families import FAMILIES

INDEX = "model_index.json"
LICENCE_FILES = ("license*", "licence*", "copying*", "notice*", "use_policy*")  # in whatever case
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
PART_FILES = ("*.json", "*.txt", "*.safetensors")
ROOT_FILES = (INDEX, "README.md")
ROOT_EXTRAS = ("teacher.json", "references.json", "references.safetensors", "captions.txt")
EVALUATION_PARTS = ("evaluation_clip",)
CONFIG_FILES = ("config.json", "tokenizer_config.json", "scheduler_config.json")


def is_config(name: str) -> bool:
    """Tell whether a file of a pipeline says of what kind the pipeline or a part of it is."""
    return name == INDEX or PurePosixPath(name).name in CONFIG_FILES


def choose_files(names: Iterable[str], index: Mapping[str, Any]) -> list[str]:
    """Return which of a teacher's files to fetch.

    Parameters
    ----------
    names
        Paths of all that lies there, relative to the teacher.
    index
        Content of its ``model_index.json``.

    Raises
    ------
    BadTeacherError
        If a part has no safetensors weights.
    """
    parts = [*known_parts(index), *EVALUATION_PARTS]
    names = sorted(names)
    chosen = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if (folder in parts and is_part_file(file)) or (not folder and _is_root_file(file)):
            chosen.append(name)
    for part in parts:
        files = [name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == part]
        if files and not part.startswith(("tokenizer", "scheduler")):
            plain_weights(part, files)
    return chosen


def is_licence(file: str) -> bool:
    """Tell whether a file beside the parts of a pipeline is a text of terms, by its name in whatever case."""
    # LICENSE.bin would be copied into the student, and may be a pickle.
    return _matches(file.lower(), LICENCE_FILES) and not _is_pickle(file)


def is_part_file(file: str) -> bool:
    """Tell whether a file in the folder of a part is one that the part is loaded from."""
    return _matches(file, PART_FILES) and not _is_variant(file)


def plain_weights(part: str, files: Sequence[str]) -> list[str]:
    """Return the safetensors files among those of a part, shards in order.

    Where full precision and a variant such as ``fp16`` lie side by side, the variant is left out.

    Raises
    ------
    BadTeacherError
        If there is none; it names what is there instead, a variant or a pickle.
    """
    plain = [file for file in sorted(files) if file.endswith(".safetensors") and not _is_variant(file)]
    if not plain and (variants := sorted(filter(_is_variant, files))):
        raise BadTeacherError(
            f"{part} has safetensors weights only as a variant, {variants[0]}",
            "load the pipeline with from_pretrained(…, variant=…) and save it again without one",
        )
    if not plain:
        pickles = sorted(filter(_is_pickle, files))
        instead = f", only {pickles[0]}: a pickle, which can run code when it is read" if pickles else ""
        raise BadTeacherError(
            f"{part} has no safetensors weights{instead}",
            "convert the weights to safetensors; pickled weights are never read",
        )
    return plain


def known_parts(index: Mapping[str, Any]) -> list[str]:
    """Return which entries of an index are parts that a family's pipeline cannot do without."""
    known = {part for family in FAMILIES for part in family.parts} | {"scheduler"}
    return [name for name in index if name in known]


def _is_root_file(file: str) -> bool:
    return file in (*ROOT_FILES, *ROOT_EXTRAS) or is_licence(file)


def _is_pickle(file: str) -> bool:
    return _matches(file.lower(), PICKLES)


def _matches(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in patterns)


def _is_variant(name: str) -> bool:
    return name.endswith(".safetensors") and PurePosixPath(name).name.count(".") > 1
