"""The parameters policies may have: type, unit, bounds and meaning of each. Names are the managed service's own."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from probed import quantity
from probed.quantity import human_bytes

Unit = Literal["count", "seconds", "bytes", "percent", "number"]


class Parameter(Struct, frozen=True):
    unit: Unit
    low: float
    high: float
    says: str
    whole: bool = False

    def parse(self, value: object) -> float:
        """The value in base units. ValueError says what was expected and what was found."""
        number = _number(value, self)
        if not self.low <= number <= self.high:
            raise ValueError(f"expected {self.expected()}, got {_shown(value)}")
        return number

    def expected(self) -> str:
        """``a whole number from 1 to 100``."""
        noun = {
            "count": "a whole number",
            "seconds": "seconds (or a duration such as 100ms)",
            "bytes": "bytes (or a size such as 10GiB)",
            "percent": "a percentage",
            "number": "a number",
        }[self.unit]
        shown = human_bytes if self.unit == "bytes" else "{:g}".format
        return f"{noun} from {shown(self.low)} to {shown(self.high)}"


def _number(value: object, parameter: Parameter) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected {parameter.expected()}, got {_shown(value)}")
    try:
        if isinstance(value, str):
            if parameter.unit == "seconds":
                return quantity.seconds(value)
            if parameter.unit == "bytes":
                return float(quantity.size(value))
            raise ValueError
        if parameter.whole and value != int(value):
            raise ValueError
    except ValueError:
        raise ValueError(f"expected {parameter.expected()}, got {_shown(value)}") from None
    return float(value)


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else "nothing" if value is None else str(value)


PARAMETERS: dict[str, Parameter] = {
    "failure_count": Parameter("count", 1, 1000, "failed samples in a row before the event opens", whole=True),
    "sample_count": Parameter("count", 1, 1000, "samples in a row that meet the condition", whole=True),
    "no_leader_count": Parameter("count", 1, 1000, "samples in a row without a leader", whole=True),
    "lag_threshold_sec": Parameter("seconds", 0.1, 30 * 86400, "replication delay in seconds"),
    "usage_pct": Parameter("percent", 1, 100, "used connections, per cent of those ordinary roles can have"),
    "deadlock_count": Parameter("count", 1, 1_000_000, "deadlocks within one sliding window", whole=True),
    "hit_ratio_threshold": Parameter("percent", 0, 100, "cache hit ratio in per cent; below it is too low"),
    "min_blocks": Parameter("count", 0, 10**12, "blocks a cycle must have touched to say anything", whole=True),
    "warmup_sec": Parameter("seconds", 0, 7 * 86400, "time since server start or promotion with a cold cache"),
    "latency_threshold": Parameter("seconds", 0.0001, 3600, "round trip of SELECT 1"),
    "max_lag": Parameter("seconds", 0.01, 60, "time for which this daemon got no processor"),
    "used_pct": Parameter("percent", 1, 100, "open file descriptors of this daemon, per cent of its limit"),
    "blind_after": Parameter("seconds", 1, 7 * 86400, "how long a target cannot be seen before it is told"),
    "failing_after": Parameter("seconds", 1, 7 * 86400, "how long a receiver takes nothing before others are told"),
    "size_threshold": Parameter("bytes", 0, 2**60, "used bytes of the file system"),
}
"""Parameters of the built-in policies. A policy of your own may name others; they take any number or quantity."""

FREE = Parameter("number", -1e300, 1e300, "a parameter of your own")


def parse(name: str, value: object) -> float:
    """The value of parameter ``name`` in base units. ValueError names what was expected."""
    known = PARAMETERS.get(name)
    if known is not None:
        return known.parse(value)
    if isinstance(value, str):
        return quantity.parse(value)
    return FREE.parse(value)
