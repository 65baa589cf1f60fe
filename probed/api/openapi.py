"""``/api/v1/openapi.json``: the API's description, OpenAPI 3.1, generated from the routes and the types they give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from probed.api import schemas
from probed.api.answers import as_json
from probed.api.problems import CONTENT_TYPE, KINDS
from probed.api.routing import JSON, Call, Route
from probed.version import version

ALWAYS = ("bad-query", "unauthorized", "forbidden", "foreign-host", "internal", "store", "timeout")
WITH_BODY = ("bad-body", "invalid", "too-large", "unsupported-media-type")

Json = dict[str, Any]


def route(routes: Sequence[Route]) -> Route:
    """The route that describes ``routes``, and itself."""
    described: list[Json] = []

    async def handler(_: Call) -> web.Response:
        if not described:  # 30 ms that a daemon whose API nobody asks about never spends
            described.append(describe([*routes, own]))
        return as_json(described[0])

    own = Route("GET", "/api/v1/openapi.json", handler, "This description.", gives=dict[str, Any])
    return own


def describe(routes: Sequence[Route]) -> Json:
    """The whole document."""
    from pydantic import TypeAdapter

    types: dict[int, Any] = {id(gives): gives for gives in (each.gives for each in routes) if gives is not None}
    bodies: dict[int, Any] = {id(each.body): each.body for each in routes if each.body is not None}
    wanted: list[tuple[str, Any, TypeAdapter[Any]]] = [
        *((str(key), "serialization", TypeAdapter(kind)) for key, kind in types.items()),
        *((str(key), "validation", TypeAdapter(kind)) for key, kind in bodies.items()),
        ("problem", "serialization", TypeAdapter(schemas.Problem)),
    ]
    found, definitions = TypeAdapter.json_schemas(wanted, ref_template="#/components/schemas/{model}")
    of = {key: schema for (key, _), schema in found.items()}
    paths: dict[str, Json] = {}
    for each in routes:
        operation = _operation(each, of)
        paths.setdefault(_plain(each.path), {})[each.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "probed",
            "version": version(),
            "description": "Health and events of PostgreSQL HA stacks. Errors are application/problem+json (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(definitions.get("$defs", {})),
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"password": []}, {"token": []}],
    }


def _operation(route: Route, of: dict[str, Json]) -> Json:
    names = re.findall(r"\{(\w+)", route.path)
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    parameters += [
        {"name": one.name, "in": "query", "description": one.says, "schema": one.schema()} for one in route.takes
    ]
    parameters += [{"name": name, "in": "header", "schema": {"type": "string"}} for name in route.headers]
    answer: Json = {"description": "Done."}
    if route.status != 204:
        schema = of[str(id(route.gives))] if route.gives is not None else {"type": "string"}
        also = {kind: {"schema": schema if "yaml" in kind else {"type": "string"}} for kind in route.also}
        answer["content"] = {route.media: {"schema": schema}, **also}
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.says,
        "description": f"Needs the role {route.needs}." if route.needs is not None else "Open to everybody.",
        "parameters": parameters,
        "responses": {
            **{str(status): answer for status in (route.status, *route.statuses)},
            **_refusals(route, of["problem"]),
        },
    }
    if route.body is not None:
        content = {kind: {"schema": of[str(id(route.body))]} for kind in route.bodies}
        operation["requestBody"] = {"required": True, "content": content}
    if route.needs is None:
        operation["security"] = [{}]
    return operation


def _refusals(route: Route, problem: Json) -> Json:
    kinds = [*ALWAYS, *route.refusals, *(WITH_BODY if route.body is not None else ())]
    if route.changes:
        kinds.append("read-only")
    by_status: dict[str, list[str]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        by_status.setdefault(str(status), []).append(title)
    if route.needs is None and route.media != JSON:
        by_status.setdefault("503", []).append("Not ready")
    content = {CONTENT_TYPE: {"schema": problem}}
    if route.path == "/-/ready":
        content[route.media] = {"schema": {"type": "string"}}
    return {
        status: {"description": ". ".join(dict.fromkeys(titles)) + ".", "content": content}
        for status, titles in sorted(by_status.items())
    }


def _operation_id(route: Route) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", route.path.removeprefix("/api/v1")) if word]
    return "_".join([route.method.lower(), *words])


def _plain(path: str) -> str:
    """aiohttp's ``{id:pattern}`` without the pattern."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
