"""What the probes of components share: one request with the component's credentials, and the operator's own tests."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Literal

from probed.errors import Blind, TargetFailed
from probed.model import Expect
from probed.probes import Context, Readings
from probed.probes._http import Answer

READINGS = {"http_status": "status of the deciding answer"}


async def ask(
    context: Context, path: str = "", *, method: Literal["GET", "HEAD"] = "GET", door: int = 0, refusal: bool = True
) -> Answer:
    """One request to the component. Blind when a configured credential is refused (unless not ``refusal``)."""
    url = context.urls[door] + path
    request = context.http.get if method == "GET" else context.http.head
    answer = await request(url, access=context.access)
    if refusal:
        require_credential(context, answer)
    return answer


def require_credential(context: Context, answer: Answer) -> None:
    """Blind when the answer refuses a credential that is configured."""
    credential = context.access.credential_for(answer.url) if context.access is not None else ""
    if credential and answer.status in (401, 403):
        raise Blind("auth", f"{answer.url}: HTTP {answer.status}: what {credential} names is refused")


def readings(answer: Answer) -> Readings:
    return {"http_status": float(answer.status)}


def require_status(answer: Answer, *expected: int) -> None:
    """TargetFailed unless the answer has one of these statuses."""
    if answer.status not in expected:
        raise unexpected(answer, " or ".join(str(status) for status in expected))


def unexpected(answer: Answer, expected: str) -> TargetFailed:
    """The failure of an answer whose status is not what was ``expected``."""
    if 300 <= answer.status < 400:
        return TargetFailed("redirect", f"{answer.url}: HTTP {answer.status}, a redirect, which probes do not follow")
    hint = "; it asks for credentials, and none are configured" if answer.status == 401 else ""
    return TargetFailed("status", f"{answer.url}: HTTP {answer.status}, expected {expected}{hint}")


async def as_configured(context: Context, method: str = "GET") -> Readings:
    """The address asked as it stands, judged by expect_status, expect_json and expect_body."""
    return readings(await as_expected(context, method))


async def as_expected(context: Context, method: str = "GET") -> Answer:
    """The same answer itself."""
    expect = context.expect
    # Who expects a 401 has said so; then it refuses nothing.
    answer = await ask(
        context, method="HEAD" if method == "HEAD" else "GET", refusal=not set(expect.status) & {401, 403}
    )
    check(answer, expect)
    return answer


def check(answer: Answer, expect: Expect) -> None:
    """TargetFailed where the answer is not as expected."""
    if not _is_expected(answer.status, expect.status):
        raise unexpected(answer, " or ".join(str(status) for status in expect.status) or "2xx")
    if expect.json:
        found = answer.object()
        for key, value in expect.json.items():
            _compare(answer.url, "", key, found, value)
    if expect.body and expect.body.encode() not in answer.body:
        raise TargetFailed("body", f'{answer.url}: the answer does not contain "{expect.body[:100]}"')


def _is_expected(status: int, expected: Collection[int]) -> bool:
    return status in expected if expected else 200 <= status < 300


def _compare(url: str, above: str, key: str, found: Mapping[str, object], wanted: object) -> None:
    path = f"{above}{key}"
    if key not in found:
        raise TargetFailed("body", f"{url}: {path} is missing, expected {_shown(wanted)}")
    value = found[key]
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        for inner, inner_wanted in wanted.items():
            _compare(url, f"{path}.", inner, value, inner_wanted)
    elif not _same(value, wanted):
        raise TargetFailed("body", f"{url}: {path} is {_shown(value)}, expected {_shown(wanted)}")


def _same(value: object, wanted: object) -> bool:
    # In JSON, true is not 1.
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted


def _shown(value: object) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False)[:80]
    except (ValueError, RecursionError):
        return type(value).__name__
