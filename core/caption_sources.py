"""Where a job's captions come from, how they are cleaned, and which of them the teacher draws.

Part of the job's specification, and therefore free of torch.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from core.caption_formats import CaptionFormat
from core.errors import BadCaptionsError
from core.hold_out import HoldOut
from core.object_references import check_object_reference
from core.spec_model import SpecModel

MAX_CAPTION_CHARACTERS = 1_000
MAX_INLINE_CAPTIONS = 10_000

NO_NUL = r"^[^\x00]*$"  # neither Postgres nor a file name can hold that character
Caption = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CAPTION_CHARACTERS, pattern=NO_NUL),
]
UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
HUB_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"  # never a path outside a folder
Name = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_NUL)]


class InlineCaptions(SpecModel):
    """Captions given in the request itself."""

    kind: Literal["inline"] = "inline"
    texts: list[Caption] = Field(min_length=1, max_length=MAX_INLINE_CAPTIONS)


class _CaptionTable(SpecModel):
    """How a file of captions is read, wherever it lies: text, CSV, TSV, JSON Lines or Parquet.

    All but Parquet may be compressed with gzip or zstd. The file's name says what it is, as in
    ``captions.jsonl.zst``, unless `format` does.
    """

    format: CaptionFormat | None = None
    column: Name | None = Field(
        default=None,
        description="Column of a table; by default that called caption, text or prompt, or the only one of a "
        "format that tells names from captions (JSON Lines, Parquet).",
    )
    limit: int | None = Field(default=None, ge=1, description="Rows to read; all by default.")


class FileCaptions(_CaptionTable):
    """Captions in a file on the machine that does the work."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1, max_length=4_096, pattern=NO_NUL)


class _FetchedCaptions(_CaptionTable):
    """Captions in a file that somebody fetches before the work begins."""

    def at(self, path: Path) -> FileCaptions:
        """Return the same captions as a file on this machine."""
        return FileCaptions(path=str(path), format=self.format, column=self.column, limit=self.limit)


class UploadedCaptions(_FetchedCaptions):
    """Captions in a file that was sent to ``POST /captions``."""

    kind: Literal["uploaded"] = "uploaded"
    id: str = Field(
        pattern=UUID, description="Id of the file.", examples=["019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"]
    )


class S3Captions(_FetchedCaptions):
    """Captions in an object under one of the prefixes that the service's operator allows."""

    kind: Literal["s3"] = "s3"
    uri: Annotated[str, AfterValidator(check_object_reference)] = Field(
        max_length=1_100, examples=["s3://data/captions/laion.parquet"]
    )
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = Field(
        default=None,
        description="Which content the object must have; that of the time of submission by default.",
    )


class HubCaptions(SpecModel):
    """One column of a data set of the Hugging Face Hub, streamed."""

    kind: Literal["hub"] = "hub"
    dataset: Annotated[str, StringConstraints(max_length=200, pattern=HUB_ID)] = Field(
        description="The data set as `owner/name`.", examples=["google-research-datasets/conceptual_captions"]
    )
    config: Name | None = None
    split: Name = "train"
    column: Name = Field(examples=["caption"])
    revision: Name | None = None
    limit: int | None = Field(default=None, ge=1, description="Rows to read; all by default.")

    def check_owner(self) -> None:
        """Refuse a name alone; the model allows it, as it also reads what earlier releases took.

        It may be that of one of the ``datasets`` library's readers, such as ``text`` and ``parquet``, which
        read what lies in the folder that the worker runs in.

        Raises
        ------
        BadCaptionsError
            It says how the data set is named.
        """
        if "/" not in self.dataset:
            raise BadCaptionsError(
                f"{self.dataset} names no data set of the Hub: its owner is missing",
                "write owner/name; a set that once had none, such as squad, has one now: rajpurkar/squad",
            )


class BundledCaptions(SpecModel):
    """The caption set that comes with a bundled teacher."""

    kind: Literal["bundled"] = "bundled"
    name: Literal["emoji-64"] = "emoji-64"


CaptionSource = Annotated[
    InlineCaptions | FileCaptions | UploadedCaptions | S3Captions | HubCaptions | BundledCaptions,
    Field(discriminator="kind"),
]


class CaptionLimits(SpecModel):
    """Which captions are left out for their length, in characters after normalisation."""

    min_characters: int = Field(default=1, ge=1, le=MAX_CAPTION_CHARACTERS)
    max_characters: int = Field(default=MAX_CAPTION_CHARACTERS, ge=1, le=MAX_CAPTION_CHARACTERS)

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"min_characters {self.min_characters} is more than max_characters {self.max_characters}"
            )
        return self


class _Drawn(SpecModel):
    """What all ways to choose the drawn captions share."""

    hold_out: list[Caption] = Field(
        default=[],
        max_length=MAX_INLINE_CAPTIONS,
        description="Words or phrases; a caption with one of them is never drawn, whatever its letter case.",
        examples=[["cat", "polar bear"]],
    )

    @field_validator("hold_out")
    @classmethod
    def _phrases_have_words(cls, phrases: list[str]) -> list[str]:
        HoldOut(phrases)
        return phrases


class DrawnByCount(_Drawn):
    """Draw a number of captions, chosen from the set by the job's seed.

    With one seed, the captions of a smaller count are among those of a larger one.
    """

    count: int = Field(default=256, ge=1, le=1_000_000)


class DrawnByFraction(_Drawn):
    """Draw a fraction of the captions that are not held out, chosen by the job's seed, at least one."""

    fraction: float = Field(gt=0, le=1)


class DrawnByText(_Drawn):
    """Draw exactly these captions; they join the set if it does not hold them yet."""

    texts: list[Caption] = Field(min_length=1, max_length=MAX_INLINE_CAPTIONS)

    @model_validator(mode="after")
    def _nothing_drawn_is_held_out(self) -> Self:
        held_out = HoldOut(self.hold_out)
        for number, text in enumerate(self.texts, start=1):
            if text in held_out:
                raise ValueError(f"hold_out holds out text {number} of those to draw")
        return self
