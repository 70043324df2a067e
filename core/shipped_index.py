"""Which parts of a teacher's pipeline its student is shipped with; free of torch.

An estimate counts their bytes before there is anything to export.
"""

from pathlib import Path
from typing import Any

from core.families import LIBRARIES
from core.teacher_files import INDEX, known_parts
from core.teacher_folder import read_json
from core.weight_files import has_weights, weight_files

REPLACED_COMPONENT = "unet"
ABSENT = [None, None]  # how an index says that the pipeline goes without a component
SAFETY_CHECKER, FEATURE_EXTRACTOR = "safety_checker", "feature_extractor"
OPTIONAL_LIBRARIES = (*LIBRARIES, "stable_diffusion")  # the last holds the class of the safety checker


def shipped_index(teacher: Path) -> dict[str, Any]:
    """Return a teacher's index without the optional components that its folder does not hold whole.

    diffusers loads no folder whose index names what is not there, and no safety checker without the feature
    extractor that prepares its pictures.
    """
    index = read_json(teacher / INDEX)
    parts = known_parts(index)
    optional = {name for name, entry in index.items() if isinstance(entry, list) and name not in parts}
    kept = {name for name in optional if _is_whole(teacher, name, index[name])}
    if FEATURE_EXTRACTOR not in kept:
        kept.discard(SAFETY_CHECKER)
    index |= dict.fromkeys(optional - kept, ABSENT)
    if SAFETY_CHECKER in optional - kept:
        index["requires_safety_checker"] = False
    return index


def shipped_weights(teacher: Path) -> list[Path]:
    """Return the weight files of every component that is copied: all that the index names but the U-Net."""
    components = [
        teacher / name
        for name, entry in shipped_index(teacher).items()
        if isinstance(entry, list) and entry != ABSENT and name != REPLACED_COMPONENT
    ]
    return [file for component in components if has_weights(component) for file in weight_files(component)]


def _is_whole(teacher: Path, name: str, entry: list[Any]) -> bool:
    """Tell whether an optional component is of a known library and has the files that it is loaded from."""
    if not name.isidentifier() or len(entry) != 2 or entry[0] not in OPTIONAL_LIBRARIES:
        return False
    component = teacher / name
    if name == FEATURE_EXTRACTOR:
        return (component / "preprocessor_config.json").is_file()
    return (component / "config.json").is_file() and has_weights(component)
