"""A policy's rule as a sentence for people. Pure."""

from __future__ import annotations

from probed.model import Change, Comparison, Condition, Increase, Occurrence, Policy, Threshold
from probed.policy.parameters import PARAMETERS
from probed.quantity import human_bytes, human_seconds

_WORDS = {">=": "at or above", ">": "above", "<=": "at or below", "<": "below", "==": "equal to", "!=": "not"}


def rule(policy: Policy) -> str:
    """``failed in 3 samples in a row; resolved after 2 that are not; every 5 s, so at most 17 s``."""
    detect = policy.detect
    pace = f"every {human_seconds(policy.interval)}"
    match detect:
        case Threshold():
            times = "1 sample" if detect.count == 1 else f"{detect.count} samples in a row"
            worst = human_seconds(detect.count * policy.interval + policy.timeout)
            clearing = f" ({_condition(detect.resolve_when)})" if detect.resolve_when else ""
            return (
                f"{_condition(detect.when)} in {times}, {pace} (told within {worst}); "
                f"resolved after {_good(detect.resolve_count)}{clearing}"
            )
        case Increase():
            return (
                f"{detect.reading} rises by {detect.at_least:g} or more within {human_seconds(detect.window)}, {pace}; "
                f"resolved after {_good(detect.resolve_count)}"
            )
        case Change():
            return f"{detect.reading} becomes another, {pace}"
        case Occurrence():
            return f"{detect.reading} above 0, {pace}"


def value(name: str, number: float | str) -> str:
    """A parameter in its unit: ``100 ms``, ``10.0 GiB``, ``80 %``."""
    known = PARAMETERS.get(name)
    if isinstance(number, str) or known is None:
        return str(number) if isinstance(number, str) else f"{number:g}"
    match known.unit:
        case "seconds":
            return human_seconds(number)
        case "bytes":
            return human_bytes(number)
        case "percent":
            return f"{number:g} %"
        case _:
            return f"{number:g}"


def _good(count: int) -> str:
    return "1 that does not" if count == 1 else f"{count} in a row that do not"


def _condition(condition: Condition) -> str:
    return "failed" if condition.on_failure else " and ".join(_comparison(item) for item in condition.comparisons)


def _comparison(item: Comparison) -> str:
    limit = value(item.parameter, item.value) if item.parameter else f"{item.value:g}"
    return f"{item.reading} {_WORDS[item.op]} {limit}"
