"""The concepts that the teacher learns: which emoji, under which names, and the files they come from.

Pictures and categories come from the npm package ``emoji-datasource-google`` (Google's Noto emoji), names
and keywords from ``emojibase-data``. Groups that cannot be told apart or drawn at 64 pixels are left out by
the table below: flags, keycaps and other written signs, people and hand signs, most faces, clocks.
"""

import json
import re
import subprocess
import tarfile
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"emoji-datasource-google": "16.0.0", "emojibase-data": "17.0.0"}

SUBCATEGORIES_BY_CATEGORY: dict[str, tuple[str, ...] | None] = {
    "Animals & Nature": None,
    "Food & Drink": None,
    "Travel & Places": None,
    "Objects": None,
    "Activities": None,
    "Smileys & Emotion": (
        "face-smiling",
        "face-hat",
        "face-glasses",
        "face-costume",
        "cat-face",
        "monkey-face",
        "heart",
    ),
    "People & Body": ("body-parts",),
}
DRAWN_CATEGORIES = ("Animals & Nature", "Food & Drink")
DRAWN_SUBCATEGORIES = (
    "transport-ground",
    "transport-air",
    "transport-water",
    "musical-instrument",
    "sport",
    "heart",
    "face-costume",
)
UNLEARNABLE_NAME = re.compile(r"oclock|thirty")
MAX_ALIASES = 2


@dataclass(frozen=True)
class Concept:
    """One emoji: its CLDR name, other names that mean nothing else in the set, and its picture's file."""

    name: str
    aliases: tuple[str, ...]
    category: str
    subcategory: str
    picture: Path

    @property
    def is_drawn(self) -> bool:
        """Whether the teacher learns to draw it; the others only widen what its CLIP and tokenizer know."""
        return self.category in DRAWN_CATEGORIES or self.subcategory in DRAWN_SUBCATEGORIES


def fetch_packages(directory: Path) -> None:
    """Unpack the two npm packages below `directory`, once, with the machine's npm client."""
    directory.mkdir(parents=True, exist_ok=True)
    for package, version in PACKAGES.items():
        if (directory / package / "package.json").exists():
            continue
        # The command is fixed here; npm is found on the user's own path.
        subprocess.run(  # noqa: S603
            ["npm", "pack", f"{package}@{version}"],  # noqa: S607
            cwd=directory,
            check=True,
            capture_output=True,
        )
        with tarfile.open(directory / f"{package}-{version}.tgz") as archive:
            archive.extractall(directory / f"{package}.part", filter="data")
        (directory / f"{package}.part" / "package").rename(directory / package)


def read_concepts(directory: Path) -> list[Concept]:
    """Read the chosen concepts, in the order of the picture package, from the packages below `directory`."""
    pictures = directory / "emoji-datasource-google"
    labels = _labels_and_tags(directory / "emojibase-data" / "en" / "data.json")
    chosen = [
        (labels[_code(entry)], entry)
        for entry in json.loads((pictures / "emoji.json").read_text())
        if entry["has_img_google"] and _code(entry) in labels and _is_chosen(entry)
    ]
    chosen = [(label, entry) for label, entry in chosen if not UNLEARNABLE_NAME.search(label[0])]
    names = {name for (name, _), _ in chosen}
    tag_counts = Counter(tag for (_, tags), _ in chosen for tag in set(tags))
    unambiguous = {tag for tag, count in tag_counts.items() if count == 1} - names
    return [
        Concept(
            name=name,
            aliases=tuple(tag for tag in dict.fromkeys(tags) if tag in unambiguous)[:MAX_ALIASES],
            category=entry["category"],
            subcategory=entry["subcategory"],
            picture=pictures / "img" / "google" / "64" / entry["image"],
        )
        for (name, tags), entry in chosen
    ]


def _labels_and_tags(path: Path) -> dict[str, tuple[str, list[str]]]:
    return {
        _without_variation_selector(entry["hexcode"]): (
            _plain(entry["label"]),
            [_plain(tag) for tag in entry.get("tags", ()) if len(_plain(tag)) > 2],
        )
        for entry in json.loads(path.read_text())
    }


def _is_chosen(entry: dict) -> bool:
    if entry["category"] not in SUBCATEGORIES_BY_CATEGORY:
        return False
    subcategories = SUBCATEGORIES_BY_CATEGORY[entry["category"]]
    return subcategories is None or entry["subcategory"] in subcategories


def _code(entry: dict) -> str:
    return _without_variation_selector(entry["unified"])


def _without_variation_selector(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "FE0F")


def _plain(text: str) -> str:
    """Lower-case ASCII letters, digits, spaces and hyphens only: what the tokenizer learns."""
    ascii_text = (
        unicodedata.normalize("NFKD", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", ""))
        .encode("ascii", "ignore")
        .decode()
    )
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9 -]", " ", ascii_text.lower())).strip()
