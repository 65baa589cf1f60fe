"""Bodies of requests: what is wrong is told with its path, all at once, whatever the client calls its keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import Field

from probed.api.problems import Refused
from probed.api.routing import read_body, validated
from probed.strict_yaml import Strict


class Part(Strict):
    size: int = 1


class Body(Strict):
    name: str
    parts: list[Part] = Field(default_factory=list)


@pytest.mark.parametrize(
    "data, problems",
    [
        ({"name": "x", "b.c": 1, "x-y": 2}, ["b.c", "x-y"]),
        ({"parts": [{"size": "q", "x-y": 1}]}, ["name", "parts[0].size", "parts[0].x-y"]),
        ({"name": None}, ["name"]),
        ({"name": "x", "": 1}, [""]),
        ([], [""]),
        (None, [""]),
    ],
)
def test_every_problem_of_a_body_is_told_with_its_path(data: Any, problems: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        validated(data, Body)
    assert sorted(str(error["path"]) for error in refused.value.errors) == sorted(problems)
    assert refused.value.response().status == 422
    assert "instance of" not in refused.value.detail


def request(text: bytes, content_type: str = "application/json") -> web.Request:
    made = make_mocked_request("POST", "/", headers={"Content-Type": content_type})
    made._read_bytes = text
    return made


@pytest.mark.parametrize(
    "text, told",
    [
        (b'{"name": "x", "name": "y"}', 'the key "name" stands there twice'),
        (b'{"name": NaN}', "NaN is no number in JSON"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"name": ', "line 1, column 10"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"", "line 1, column 1"),
    ],
)
async def test_what_is_no_json_is_refused_with_the_place(text: bytes, told: str) -> None:
    with pytest.raises(Refused) as refused:
        await read_body(request(text), Body)
    assert told in refused.value.detail
    assert refused.value.response().status == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_of_another_site_could_send_is_not_read(kind: str) -> None:
    with pytest.raises(Refused) as refused:
        await read_body(request(json.dumps({"name": "x"}).encode(), kind), Body)
    assert refused.value.response().status == 415
