"""What the pages of the manual tell a reader to type, in the order in which they tell it."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FIRST = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", DOCS / "start.md"]
PAGES = [*FIRST, *sorted(set(DOCS.rglob("*.md")) - set(FIRST))]
GENERATED = {DOCS / "reference" / name for name in ("http.md", "command-line.md")}
PROGRAMS = (".", "condenser", "curl", "docker", "export", "hf", "kubectl", "make", "pip", "python", "sh")
ASSIGNMENTS = re.compile(r"^([A-Z_]+=\S+ +)+(?=\S)")
COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Command:
    """A line for the shell, or a piece of Python.

    Attributes
    ----------
    text
        As it stands on the page, without its comment.
    """

    page: Path
    is_python: bool
    text: str

    @property
    def name(self) -> str:
        """What to call it in a list: of Python the last line."""
        return self.text.strip().splitlines()[-1].strip()

    @property
    def arguments(self) -> str:
        """The line without the variables that are set for it alone."""
        return ASSIGNMENTS.sub("", self.text)


def commands_of(page: Path) -> list[Command]:
    """Read a page: indented lines that begin with a program, joined at backslashes, and blocks of Python."""
    found: list[Command] = []
    block: list[str] | None = None
    fence = ""
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith(("```", ":::")):
            if block is None:
                block, fence = [], line.strip("`: ")
                continue
            if fence == "python":
                found.append(Command(page, True, "\n".join(block)))
            block = None
        elif block is not None:
            block.append(line)
        elif line.startswith("    "):
            text = " ".join(COMMENT.sub("", line).split())
            if ASSIGNMENTS.sub("", text).split(" ")[0] in PROGRAMS:
                found.append(Command(page, False, text))
    return found


COMMANDS = [command for page in PAGES if page not in GENERATED for command in commands_of(page)]
