"""``probed schema``: JSON Schema of our files, for editors."""

from __future__ import annotations

import copy
from typing import Any

import click

DRAFT = "https://json-schema.org/draft/2020-12/schema"


@click.command("schema")
@click.argument("kind", type=click.Choice(["config", "policy"]))
def command(kind: str) -> None:
    """Print the JSON Schema (draft 2020-12) of probed.yml or of a policy file.

    An editor with the YAML language server takes it by a comment in the first line of the file:

    # yaml-language-server: $schema=probed-config.schema.json
    """
    import json

    click.echo(json.dumps(config() if kind == "config" else policy(), indent=2))


def config() -> dict[str, Any]:
    """Of ``probed.yml``."""
    from probed.config.settings import Settings

    return {"$schema": DRAFT, **Settings.model_json_schema(), "title": "probed.yml"}


def policy() -> dict[str, Any]:
    """Of a policy file: a complete policy, or only what changes in a built-in one."""
    from probed.policy.load import BUILT_IN, policy_schema

    complete = policy_schema()
    definitions = complete.pop("$defs", {})
    override = copy.deepcopy(complete)
    override["required"] = ["id"]
    override["description"] = "Changes to a built-in policy: only the keys that differ. Maps merge."
    known = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))
    override["properties"]["id"] = {"enum": known, "description": "A built-in policy."}
    for key in ("detect", "params"):
        override["properties"][key] = {"type": "object"}
    return {"$schema": DRAFT, "title": "probed policy", "anyOf": [override, complete], "$defs": definitions}
