"""The captions of a job: read, cleaned, made unique, told apart, and kept on disk.

The teacher draws pictures for the drawn captions alone; the others are only ever read. Of these some may have
been held out of the drawing on purpose. A caption's index in the set is its name everywhere else.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.arrays import load_array, save_array
from core.caption_cleaning import CaptionReport, clean_captions, normalise
from core.caption_pool import CaptionPool, CaptionPoolWriter
from core.caption_readers import read_file
from core.drawn import all_but, choose_drawn
from core.errors import BadCaptionsError
from core.events import EventWriter, Progress
from core.files import replacing, write_json
from core.hold_out import HoldOut
from core.hub_captions import read_hub
from core.registry import find_teacher
from core.spec import (
    BundledCaptions,
    CaptionSource,
    DistillationSpec,
    DrawnByCount,
    DrawnByText,
    FileCaptions,
    HubCaptions,
    InlineCaptions,
    S3Captions,
    UploadedCaptions,
)
from core.stopping import StopRequest

FOLDER = "set"
DESCRIPTION_FILE, DRAWN_FILE, HELD_OUT_FILE = "captions.json", "drawn.npy", "held_out.npy"
READ_AT_ONCE = 4_096  # between two looks at whether to stop
EXPECTED_DROPS = {"empty", "duplicate"}

Split = Literal["drawn", "text_only", "held_out"]


@dataclass(frozen=True)
class CaptionSet:
    """Captions on disk.

    Attributes
    ----------
    pool
        All of them.
    drawn
        Indices of those that the teacher draws, ascending.
    held_out
        Indices of those that were kept from being drawn, ascending.
    content_hash
        SHA-256 over all captions and which are drawn.
    report
        How many were read and kept, and how many dropped for which reason.
    """

    pool: CaptionPool
    drawn: np.ndarray
    held_out: np.ndarray
    content_hash: str
    report: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def splits(self) -> dict[Split, int]:
        """How many captions are drawn, only text, and held out; none counts twice."""
        drawn, held_out = len(self.drawn), len(self.held_out)
        return {"drawn": drawn, "text_only": len(self) - drawn - held_out, "held_out": held_out}

    def choose(self, split: Split, count: int, seed: int) -> np.ndarray:
        """Return indices of a split in a random order, each as often as any other to within one."""
        rng, size = np.random.default_rng(seed), self.splits[split]
        ranks = (
            rng.choice(size, count, replace=False)
            if count < size
            else np.resize(rng.permutation(size), count)
        )
        match split:
            case "drawn":
                return self.drawn[ranks]
            case "held_out":
                return self.held_out[ranks]
            case "text_only":
                return all_but(np.union1d(self.drawn, self.held_out), ranks)

    def texts(self, indices: Iterable[int]) -> list[str]:
        """Return the captions at these indices; the index one past the last is the blank caption."""
        indices = [int(index) for index in indices]
        texts = iter(self.pool.texts(index for index in indices if index != len(self)))
        return ["" if index == len(self) else next(texts) for index in indices]


def prepare_captions(
    spec: DistillationSpec,
    folder: Path,
    teachers: list[Path],
    fetched: Path | None = None,
    stop: StopRequest | None = None,
) -> CaptionSet:
    """Read a job's captions, choose the drawn ones, and write the set; or open the one written before.

    Parameters
    ----------
    spec
        The job's specification.
    folder
        Where the set goes.
    teachers
        Folders of teachers, where bundled caption sets are.
    fetched
        The file that the captions were fetched into, where they lie elsewhere.
    stop
        Whether to stop; what was read by then is read again.

    Raises
    ------
    BadCaptionsError
        If the source cannot be read, or holds no caption, or none that may be drawn.
    """
    identity = spec.model_dump(mode="json", include={"captions", "caption_limits", "drawn", "seed"})
    description = folder / FOLDER / DESCRIPTION_FILE
    if not description.exists() or json.loads(description.read_text(encoding="utf-8"))["of"] != identity:
        with replacing(folder / FOLDER) as temporary:
            temporary.mkdir()
            texts = read_captions(spec.captions, teachers, fetched)
            _write_set(spec, identity, temporary, texts, stop or StopRequest())
    return open_captions(folder)


def open_captions(folder: Path) -> CaptionSet:
    """Open a set that `prepare_captions` wrote."""
    folder = folder / FOLDER
    description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    return CaptionSet(
        pool=CaptionPool(folder),
        drawn=load_array(folder / DRAWN_FILE),
        held_out=load_array(folder / HELD_OUT_FILE),
        content_hash=description["sha256"],
        report=description["report"],
    )


def read_captions(source: CaptionSource, teachers: list[Path], fetched: Path | None = None) -> Iterator[str]:
    """Yield the captions of a source in its order, as they are."""
    match source:
        case InlineCaptions():
            yield from source.texts
        case FileCaptions():
            yield from read_file(source)
        case UploadedCaptions() | S3Captions():
            if fetched is None:
                raise BadCaptionsError(
                    f"captions of kind {source.kind} are not read from here",
                    "name the file that they were fetched into",
                )
            yield from read_file(source.at(fetched))
        case HubCaptions():
            yield from read_hub(source)
        case BundledCaptions():
            caption_set = find_teacher(source.name, teachers).caption_set
            if caption_set is None:
                raise BadCaptionsError(
                    f"teacher {source.name} comes with no captions", "give your own captions"
                )
            yield from read_file(FileCaptions(path=str(caption_set)))


def report_captions(captions: CaptionSet, spec: DistillationSpec, events: EventWriter) -> None:
    """Say what a set holds, what was dropped on the way to it, and where it is not what was asked for."""
    events.write("captions", count=len(captions), **captions.splits, report=captions.report)
    Progress(events, "captions", "captions", len(captions)).report(len(captions))
    if lost := {why: n for why, n in captions.report["dropped"].items() if why not in EXPECTED_DROPS}:
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in lost.items())
        events.warning(f"of {captions.report['read']:,} captions some were dropped: {reasons}")
    drawn = len(captions.drawn)
    if isinstance(spec.drawn, DrawnByCount) and spec.drawn.count > drawn:
        events.warning(f"there are only {drawn:,} captions to draw: the teacher draws all of them")
    if spec.drawn.hold_out and not len(captions.held_out):
        events.warning("no caption has a word of drawn.hold_out: nothing is held out")


def _until_stopped(texts: Iterable[str], stop: StopRequest) -> Iterator[str]:
    for place, text in enumerate(texts):
        if place % READ_AT_ONCE == 0:
            stop.check()
        yield text


def _write_set(
    spec: DistillationSpec, identity: dict[str, Any], folder: Path, texts: Iterable[str], stop: StopRequest
) -> None:
    report, hold_out = CaptionReport(), HoldOut(spec.drawn.hold_out)
    held_out = array("q")
    drawn_texts = spec.drawn.texts if isinstance(spec.drawn, DrawnByText) else []
    index_of = dict.fromkeys(map(normalise, drawn_texts), -1)
    with CaptionPoolWriter(folder) as pool:
        for text in clean_captions(_until_stopped(texts, stop), spec.caption_limits, report):
            if text in hold_out:
                held_out.append(pool.count)
            if text in index_of:
                index_of[text] = pool.count
            pool.append(text)
        if not pool.count:
            raise BadCaptionsError(
                f"the caption source holds no caption that can be used: {report}",
                "give at least one line of text",
            )
        for text in [text for text, index in index_of.items() if index < 0]:
            index_of[text] = pool.count
            pool.append(text)
    held = np.array(held_out, np.int64)
    if isinstance(spec.drawn, DrawnByText):
        drawn = np.sort(np.array(list(index_of.values())))
    else:
        drawn = choose_drawn(spec.drawn, pool.count, held, spec.seed)
    save_array(folder / DRAWN_FILE, drawn)
    save_array(folder / HELD_OUT_FILE, held)
    content_hash = hash_captions(CaptionPool(folder), drawn, stop)
    description = {"of": identity, "sha256": content_hash, "report": report.as_json()}
    write_json(folder / DESCRIPTION_FILE, description)


def hash_captions(pool: CaptionPool, drawn: np.ndarray, stop: StopRequest) -> str:
    """Return the SHA-256 of the captions in their order, each with whether it is drawn, unless stopped."""
    digest, flags = hashlib.sha256(), np.zeros(len(pool), bool)
    flags[drawn] = True
    for start in range(0, len(pool), READ_AT_ONCE):
        stop.check()
        indices = range(start, min(start + READ_AT_ONCE, len(pool)))
        for text, is_drawn in zip(pool.texts(indices), flags[indices], strict=True):
            digest.update(f"{int(is_drawn)} {text}\n".encode())
    return digest.hexdigest()
