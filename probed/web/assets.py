"""The page's own files: named by their content, so that browsers keep them for ever and never show an old one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from msgspec import Struct

from probed.inspection.html import STYLE

DIRECTORY = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(Struct, frozen=True):
    """``name`` holds the hash: ``probed.3f2a91c07d11.css``."""

    name: str
    content_type: str
    body: bytes


@cache
def assets() -> Mapping[str, Asset]:
    """By plain name (``probed.css``). Read once: what is served fits the running code, also during an upgrade."""
    return {path.name: _asset(path) for path in sorted((*DIRECTORY.iterdir(), STYLE)) if path.suffix in TYPES}


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:12]
    return Asset(f"{path.stem}.{digest}{path.suffix}", TYPES[path.suffix], body)
