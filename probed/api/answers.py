"""Answers that are no errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web


def as_json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers, dumps=_dumps)


def json_text(text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON that is text already."""
    return web.Response(text=text + "\n", content_type="application/json", headers=headers)


def as_text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text + "\n")


def _dumps(body: Mapping[str, Any]) -> str:
    return json.dumps(body, allow_nan=False) + "\n"
