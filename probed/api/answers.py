"""Answers that are no errors."""

from __future__ import annotations

import json

from aiohttp import web

from probed.api.shapes import Json


def as_json(body: Json) -> web.Response:
    return web.json_response(body, dumps=_dumps)


def as_text(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text + "\n")


def _dumps(body: Json) -> str:
    return json.dumps(body, allow_nan=False) + "\n"
