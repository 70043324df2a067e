"""What the service says about caption files."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from core.caption_formats import CaptionFormat, format_to_read
from store import models


class CaptionFile(BaseModel):
    """A file of captions that a job may read as ``{"kind": "uploaded", "id": …}``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
                    "name": "captions.jsonl.zst",
                    "format": "jsonl",
                    "size": 73400320,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "created_at": "2026-03-02T10:15:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    format: CaptionFormat = Field(description="How it is read, by its name, unless the job says otherwise.")
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="Of the bytes as they were sent.")
    created_at: datetime

    @classmethod
    def of(cls, file: models.CaptionFile) -> Self:
        """Describe a stored file."""
        return cls(
            id=file.id,
            name=file.name,
            format=format_to_read(file.name),
            size=file.size,
            sha256=file.sha256,
            created_at=file.created_at,
        )
