"""What single values of our files are: durations, addresses, names, paths; each says what was expected."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from probed import quantity


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return quantity.seconds(value)
    raise ValueError(f'expected a duration with its unit such as 500ms, 10s or 5m, got "{value}"')


def _moment(value: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None or len(value) < 16:
        raise ValueError(f'expected a time with its offset such as 2026-11-28T22:00:00+01:00, got "{value}"')
    return moment.timestamp()


def _size(value: Any) -> Any:
    if isinstance(value, str):
        return quantity.size(value)
    raise ValueError(f'expected a size with its unit such as 512MiB or 10GiB, got "{value}"')


def _roomy(value: int) -> int:
    if value < 16 << 20:
        raise ValueError("expected 16MiB or more: below, there is no room to purge in")
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("expected a duration above 0")
    return value


def _address(value: str) -> str:
    split_address(value)
    return value


def http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'expected an address such as http://10.0.0.1:8008, got "{value}"')
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into an address; use a *_file key")
    _port_of(parts, value)
    return value.rstrip("/")


def hook_url(value: str) -> str:
    """An address that may hold a secret: taken as it stands, and never shown."""
    expected = "expected an address such as https://hooks.example/x (what was found is not shown)"
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not known or not value.isprintable() or " " in value:
        raise ValueError(expected)
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into an address; use a *_file key")
    return value


def _stats_address(value: str) -> str:
    return value if value.startswith("unix:/") else http_url(value)


def _component_url(value: str) -> str:
    if not value.startswith("tcp://"):
        return http_url(value)
    try:
        split_address(value.removeprefix("tcp://"))
    except ValueError:
        raise ValueError(f'expected an address such as tcp://10.0.0.1:6432, got "{value}"') from None
    return value


def _port_of(parts: Any, value: str) -> None:
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f'expected a port from 1 to 65535, got "{value}"') from None


def _name(value: str) -> str:
    if not value or len(value) > 63 or not all(char.isalnum() or char in "-_." for char in value):
        raise ValueError(f'expected a name of letters, digits, "-", "_" and "." (at most 63), got "{value}"')
    return value


_DurationText = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$", examples=["5s"])]
Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=_DurationText), AfterValidator(_positive)]
_MomentText = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-28T22:00:00+01:00"])]
Moment = Annotated[float, BeforeValidator(_moment, json_schema_input_type=_MomentText)]
_SizeText = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]iB|[kKMGT]?B)$", examples=["1GiB"])]
StoreSize = Annotated[int, BeforeValidator(_size, json_schema_input_type=_SizeText), AfterValidator(_roomy)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=_SizeText), Field(gt=0)]
HostPort = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
HookUrl = Annotated[str, AfterValidator(hook_url)]
ComponentUrl = Annotated[str, AfterValidator(_component_url)]
StatsAddress = Annotated[str, AfterValidator(_stats_address)]
Name = Annotated[str, AfterValidator(_name)]
PathText = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
Port = Annotated[int, Field(ge=1, le=65535)]


def split_address(value: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` -> (host, port). ValueError names the form."""
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not colon or not host or not 0 < number < 65536 or (":" in host and not value.startswith("[")):
        raise ValueError(f'expected host:port, got "{value}"')
    return host, number


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name counts when it is ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
