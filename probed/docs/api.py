"""The reference of the HTTP API, from the same description that is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from probed.api.openapi import describe
from probed.api.table import table as routes
from probed.docs.markdown import page, table

Json = dict[str, Any]


def page_of_the_api() -> str:
    """Every route: who may, what it takes, what it answers."""
    nobody: Any = None  # routes ask the daemon for nothing before somebody asks them
    described = describe(routes(nobody, nobody, nobody))
    operations = [
        (path, method, operation)
        for path, methods in sorted(described["paths"].items())
        for method, operation in methods.items()
    ]
    return page(
        "API",
        "Served under `/api/v1`; `GET /api/v1/openapi.json` describes it for programs (OpenAPI 3.1). Lists take "
        '`limit` and `cursor` and answer `{"items": […], "next_cursor": …}`; errors are `application/problem+json`, '
        "with everything that is wrong under `errors`. Times are RFC 3339 in UTC.",
        (_operation(path, method, operation, described) for path, method, operation in operations),
    )


def _operation(path: str, method: str, operation: Json, described: Json) -> Iterator[str]:
    yield f"## {method.upper()} {path}\n"
    yield f"{operation['summary']} {operation['description']}\n"
    takes = [
        (f"`{one['name']}`", one["in"], _kind(one["schema"]), one.get("description", ""))
        for one in operation["parameters"]
    ]
    if takes:
        yield from table(("parameter", "in", "type", "what it is"), takes)
    if "requestBody" in operation:
        kinds = operation["requestBody"]["content"]
        shown = next(iter(kinds.values()))["schema"]
        yield f"Body ({' or '.join(f'`{kind}`' for kind in kinds)}): {_shape(shown, described)}\n"
    answers = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
    for status, answer in answers.items():
        for kind, content in answer.get("content", {}).items():
            yield f"Answers {status} `{kind}`: {_shape(content['schema'], described)}\n"


def _shape(schema: Json, described: Json) -> str:
    """The keys of an object, those that may be missing in brackets; else its type."""
    while "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema:
        return _kind(schema)
    required = schema.get("required", ())
    names = [f"`{name}`" if name in required else f"[`{name}`]" for name in schema["properties"]]
    items = schema["properties"].get("items", {}).get("items")
    of = f", each item {_shape(items, described)}" if items is not None and "items" in names[0] else ""
    return ", ".join(names) + of


def _kind(schema: Json) -> str:
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    kind = schema.get("format") or {"object": "JSON object"}.get(schema.get("type", ""), schema.get("type", "any"))
    if "minimum" in schema and "maximum" in schema:
        kind = f"{kind} {schema['minimum']}–{schema['maximum']}"
    if "pattern" in schema:
        kind = f"{kind} `{schema['pattern']}`"
    return f"{kind}, default `{schema['default']}`" if "default" in schema else str(kind)
