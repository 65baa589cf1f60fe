"""The small language of ``when``: ``failed``, or ``reading op value`` joined by ``and``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

from probed import quantity
from probed.model import Comparison, Condition
from probed.strict_yaml import did_you_mean

_COMPARISON = re.compile(r"\s*([a-z_][a-z0-9_]*)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")


def parse(text: str, params: Mapping[str, float | str], readings: Set[str]) -> Condition:
    """``"lag_seconds >= lag_threshold_sec"`` with parameters resolved. ValueError says what is wrong."""
    if text.strip() == "failed":
        return Condition()
    return Condition(tuple(_comparison(part, params, readings) for part in re.split(r"\sand\s", text)))


def _comparison(text: str, params: Mapping[str, float | str], readings: Set[str]) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    if not match:
        raise ValueError(f'expected "failed" or a comparison such as "lag_seconds >= 30", got "{text.strip()}"')
    reading, op, right = match.groups()
    if reading not in readings:
        raise ValueError(f'the probe has no reading "{reading}"' + did_you_mean(reading, sorted(readings)))
    if right in params:
        value = params[right]
        if isinstance(value, str):
            raise ValueError(f'parameter "{right}" is not a number')
        return Comparison(reading, op, value, right)
    try:
        return Comparison(reading, op, quantity.parse(right))
    except ValueError:
        hint = did_you_mean(right, sorted(params))
        raise ValueError(f'"{right}" is neither a parameter of this policy nor a quantity{hint}') from None
