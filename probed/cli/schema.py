"""``probed schema``: JSON Schema of our files, for editors."""

from __future__ import annotations

import copy
from typing import Any

import click

DRAFT = "https://json-schema.org/draft/2020-12/schema"


@click.command("schema")
@click.argument("kind", type=click.Choice(["config", "policy"]))
def command(kind: str) -> None:
    """Print the JSON Schema of our files.

    Draft 2020-12; of probed.yml (config) or of a policy file (policy). An editor with the YAML language
    server takes it by a comment in the first line of the file:

    # yaml-language-server: $schema=probed-config.schema.json
    """
    import json

    click.echo(json.dumps(config() if kind == "config" else policy(), indent=2))


def config() -> dict[str, Any]:
    """Of ``probed.yml``."""
    from probed.config.settings import Settings

    document = {"$schema": DRAFT, **Settings.model_json_schema(), "title": "probed.yml"}
    _write_units(document)
    return document


def _write_units(node: Any) -> None:
    """Defaults are seconds and bytes inside; in a file they are written with their unit."""
    if isinstance(node, dict):
        if node.get("type") == "string" and isinstance(node.get("default"), float):
            node["default"] = duration(node["default"])
        elif node.get("type") == "string" and isinstance(node.get("default"), int):
            node["default"] = size(node["default"])
        for value in node.values():
            _write_units(value)
    elif isinstance(node, list):
        for value in node:
            _write_units(value)


def duration(seconds: float) -> str:
    """Seconds as a file has them: ``90d``, ``1m``, ``100ms``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def size(number: int) -> str:
    """Bytes as a file has them: ``1GiB``."""
    for unit, each in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= each and number % each == 0:
            return f"{number // each}{unit}"
    return f"{number}B"


def policy() -> dict[str, Any]:
    """Of a policy file: a complete policy, or only what changes in a built-in one."""
    from probed.policy.layers import shipped_files
    from probed.policy.load import policy_schema

    complete = policy_schema()
    definitions = complete.pop("$defs", {})
    override = copy.deepcopy(complete)
    override["required"] = ["id"]
    override["description"] = "Changes to a built-in policy: only the keys that differ. Maps merge."
    known = sorted(path.stem for path in shipped_files())
    override["properties"]["id"] = {"enum": known, "description": "A built-in policy."}
    for key in ("detect", "params"):
        override["properties"][key] = {"type": "object"}
    return {"$schema": DRAFT, "title": "probed policy", "anyOf": [override, complete], "$defs": definitions}
