"""What the routes declare to OpenAPI beside their answers: every problem that they may answer with.

Operation ids are the names of the handlers, so that generated clients read well.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.problems import PROBLEM_MEDIA_TYPE, Problem

Responses = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The request is malformed.",
    401: "The request carries no API key, or none that is good.",
    403: "The key lacks the scope that this needs, or a web page of another origin sent the request.",
    404: "There is no such thing.",
    408: "The body stopped arriving.",
    409: "The request does not fit the present state.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body is announced as something that the route does not take.",
    416: "The file has no such range.",
    421: "The service does not go by the name in the Host header.",
    422: "A field, parameter or header cannot be used; the problem says which, and what is allowed.",
    429: "Too many requests came with this key.",
    431: "The headers are too large.",
    500: "The service failed.",
    503: "A server that the service depends on does not answer; try again.",
}
_OF_EVERY_ROUTE = (403, 414, 421, 431, 500)
_TEXT = {"type": "string"}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "What the key has to be sent as.", "schema": _TEXT}},
    403: {"WWW-Authenticate": {"description": "The scope that is missing, if one is.", "schema": _TEXT}},
    429: {
        "Retry-After": {"description": "Seconds until one is answered again.", "schema": {"type": "integer"}}
    },
}


def problems(*statuses: int) -> Responses:
    """Declare the problems that a route may answer with, beside those that every route may."""
    return {
        status: {
            "description": _REASONS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*statuses, *_OF_EVERY_ROUTE})
    }


def media(media_type: str, description: str, example: str) -> Responses:
    """Declare a second media type of a route's good answer, chosen by the Accept header."""
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": description, "content": content}}


_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true` when this is the answer to an earlier request with the same key.",
        "schema": {"type": "string"},
    }
}


def created(location: str) -> Responses:
    """Declare the headers of an answer that something was created, first or repeated."""
    place = {"Location": {"description": location, "schema": {"type": "string"}}}
    return {201: {"headers": place | _REPLAYED}}


def accepted(location: str) -> Responses:
    """Declare the headers of an answer that something was begun, first or repeated."""
    return {202: created(location)[201]}


def repeatable() -> Responses:
    """Declare the header of an answer that a repeated request gets again."""
    return {200: {"headers": _REPLAYED}}


def operation_id(route: APIRoute) -> str:
    """Name an operation after its handler."""
    return route.name


def describe(app: FastAPI) -> dict[str, Any]:
    """Write the OpenAPI document, with the problem document among its schemas."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        nested = schema.pop("$defs", {})
        document["components"]["schemas"] |= {"Problem": schema} | nested
        app.openapi_schema = document
    return app.openapi_schema
