"""Reading of what an HTML form sends, as browsers encode it by default."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request

from api.errors import UnsupportedMediaTypeError

MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 1_000

Form = dict[str, list[str]]


async def _form(request: Request) -> Form:
    """Read the fields of a form, each with all its values."""
    body = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != MEDIA_TYPE:
        raise UnsupportedMediaTypeError(f"A form comes as {MEDIA_TYPE}.")
    try:
        text = body.decode("utf-8", "replace")
        return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise UnsupportedMediaTypeError(f"A form has at most {MAX_FIELDS} fields.") from error


FormDependency = Annotated[Form, Depends(_form)]
