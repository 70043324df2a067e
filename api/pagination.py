"""Lists in pages: a cursor for what follows, never an offset, so pages stay right while rows are added."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

MAX_PAGE = 200
MAX_INTEGER = 2**31 - 1

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries in a page.")]


class ListPage(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    has_more: bool = Field(default=False, description="Whether entries follow after these.")
    next: str | None = Field(default=None, description="Pass it as `after` to get the page that follows.")
