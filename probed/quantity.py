"""Human quantities in files ("100ms", "10GiB", "1h30m"), base units (seconds, bytes) inside."""

from __future__ import annotations

import math
import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
          "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def seconds(text: str) -> float:
    """``"1h30m"`` -> 5400.0. ValueError names the accepted form."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'expected a duration such as 500ms, 10s, 5m or 1h30m, got "{text}"')
    return _finite(sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)), text)


def size(text: str) -> int:
    """``"10GiB"`` -> 10737418240. ValueError names the accepted form."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f'expected a size such as 512MiB or 10GiB, got "{text}"')
    return int(_finite(float(match[1]) * _BYTES[match[2]], text))


def parse(text: str) -> float:
    """A bare number, a duration or a size, in base units. ValueError otherwise."""
    if _NUMBER.fullmatch(text):
        return _finite(float(text), text)
    if _SIZE.fullmatch(text):
        return float(size(text))
    if _DURATION.fullmatch(text):
        return seconds(text)
    raise ValueError(f'expected a number, a duration (100ms) or a size (10GiB), got "{text}"')


def _finite(value: float, text: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f'expected a number that can be reckoned with, got "{text[:40]}"')
    return value


def human_seconds(value: float) -> str:
    """Seconds as people write them: ``0.1`` -> ``100 ms``, ``95`` -> ``1 min 35 s``."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    whole = round(value)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(shown[:2])


def human_bytes(value: float) -> str:
    """Bytes as people read them: ``10737418240`` -> ``10.0 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
