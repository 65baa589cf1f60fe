from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from probed.errors import TargetFailed
from probed.model import Expect
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, check, readings
from probed.probes._deep import beside
from probed.probes._tcp import accept


class Preset(Struct, frozen=True):
    """How a known product is asked when its address has no path."""

    path: str
    status: tuple[int, ...] = (200,)
    keys: tuple[str, ...] = ()
    """Top-level keys of the JSON answer, whatever their value."""


PRESETS = {
    "meta": Preset("/health", keys=("date",)),
    # Without a token or a function's name its main service refuses: 401 or 400. A longer path would start a worker.
    "functions": Preset("/", (200, 400, 401)),
    "imgproxy": Preset("/health"),
    "analytics": Preset("/health"),
    "logflare": Preset("/health"),
    "vector": Preset("/health"),
    "supavisor": Preset("/api/health", (204,)),
}


@probe(kinds=("component",), readings=READINGS)
async def component(context: Context) -> Measured | Readings:
    """Whether any other declared component answers as it should.

    Known by their name (or ``type``) when the address has no path: ``meta`` (``/health``, with ``date`` in the JSON),
    ``functions`` (``/``; 200, 400 and 401 are alive), ``imgproxy``, ``analytics``, ``logflare`` and ``vector``
    (``/health``, 200), ``supavisor`` (``/api/health``, 204). Everything else is asked at its address as it stands, and
    must answer with a 2xx, or as ``expect_status``, ``expect_json`` (these values, among others) and ``expect_body``
    (this text) say. With ``deep: true`` postgres-meta is asked for ``/config/version``, too, once a minute, which takes
    a session of the database; what it says is told beside and decides nothing. ``tcp://host:port`` only connects.
    Failed: everything that is not as expected.
    """
    url = context.urls[0]
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        await accept(context, parts.hostname or "", parts.port or 0)
        return {}
    preset = PRESETS.get(context.expect.type)
    if preset is None or parts.query or parts.path not in ("", preset.path):
        return await as_configured(context)
    return await beside(context, _known(context, preset, preset.path if not parts.path else ""))


async def _known(context: Context, preset: Preset, path: str) -> Readings:
    expect = context.expect if context.expect.given else Expect(status=preset.status)
    answer = await ask(context, path, refusal=not set(context.expect.status) & {401, 403})
    check(answer, replace(expect, status=expect.status or preset.status))
    for key in () if context.expect.given else preset.keys:
        if key not in answer.object():
            raise TargetFailed("body", f'{answer.url}: HTTP {answer.status} without "{key}": another service answers')
    return readings(answer)
