"""``web`` in ``probed.yml``: where the listener is, who may what, and what goes together with web-config.yml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from probed.config.values import HostPort, HttpUrl, PathText, is_loopback, split_address
from probed.model import Role
from probed.strict_yaml import Strict, did_you_mean, no_items

if TYPE_CHECKING:
    from probed.config.web_config import WebConfig

DEFAULT_LISTEN = "127.0.0.1:7432"

Misfit = tuple[tuple[str | int, ...], str]
"""(path below ``web``, what is wrong)"""


def _role(value: Any) -> Role:
    known = [role.value for role in Role]
    if value in known:
        return Role(value)
    raise ValueError(f'expected {", ".join(known[:-1])} or {known[-1]}, got "{value}"')


def _host_name(value: str) -> str:
    if not value or not all(char.isalnum() or char in "-._" for char in value):
        raise ValueError(f'expected the name of a host, without a port, such as probed.example.org, got "{value}"')
    return value.lower().rstrip(".")


def _plain_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.query or parts.fragment:
        raise ValueError(f'expected an address without "?" and "#", got "{value}"')
    return value


RoleWord = Annotated[Role, BeforeValidator(_role, json_schema_input_type=Role)]
HostName = Annotated[str, AfterValidator(_host_name)]


class Web(Strict):
    listen: list[HostPort] = Field(
        default_factory=lambda: [DEFAULT_LISTEN], description="Addresses of the one listener."
    )
    config_file: PathText | None = Field(default=None, description="exporter-toolkit web-config.yml: TLS and users.")
    socket: PathText | None = Field(
        default=None, description="UNIX socket for the CLI; default probed.sock in storage.path."
    )
    insecure: bool = Field(
        default=False,
        description="Allow a non-loopback address without authentication or TLS: something in front takes care of it.",
    )
    roles: dict[str, RoleWord] = Field(
        default_factory=dict,
        description="By user of web.config_file, or by common name or SAN of a client certificate.",
    )
    default_role: RoleWord = Field(default=Role.VIEWER, description="Of those who are known and not in web.roles.")
    external_url: Annotated[HttpUrl, AfterValidator(_plain_url)] | None = Field(
        default=None, description="Where people reach this daemon, when a proxy is in front: messages link to it."
    )
    allowed_hosts: list[HostName] = Field(
        default_factory=no_items,
        description="Names under which this daemon answers, beside its own and that of external_url.",
    )

    def role_of(self, name: str) -> Role:
        return self.roles.get(name, self.default_role)

    @property
    def external_host(self) -> str:
        return (urlsplit(self.external_url).hostname or "") if self.external_url else ""

    @property
    def prefix(self) -> str:
        """Path of ``external_url`` without its last slash: what a proxy puts before ours."""
        return urlsplit(self.external_url).path.rstrip("/") if self.external_url else ""


def misfits(web: Web, config: WebConfig | None) -> Sequence[Misfit]:
    """What of ``web`` does not go together with the file that it names (``None``: it names none)."""
    wrong: list[Misfit] = []
    for index, listen in enumerate(web.listen):
        if not web.insecure and not is_loopback(split_address(listen)[0]) and (lacks := _lacks(config)):
            wrong.append((("listen", index), f"{listen} can be reached from other machines {lacks}"))
    if config is None and web.roles:
        wrong.append((("roles",), "means nothing without people: name a web.config_file with basic_auth_users"))
    if config is not None and not config.knows_certificates:
        users = list(config.basic_auth_users)
        for name in web.roles:
            if name not in users:
                wrong.append((("roles", name), f'web.config_file has no user "{name}"{did_you_mean(name, users)}'))
    return wrong


def _lacks(config: WebConfig | None) -> str:
    """What stands against an address that other machines reach, and the remedies."""
    insecure = "or set web.insecure: true if something in front of it"
    if config is None:
        return (
            "without authentication; listen on 127.0.0.1, name users and TLS in web.config_file, "
            f"{insecure} authenticates"
        )
    if not config.knows_people:
        return (
            "and web.config_file knows nobody who may; add basic_auth_users, or client certificates "
            f"(client_auth_type), listen on 127.0.0.1, {insecure} authenticates"
        )
    if config.tls_server_config is None:
        return (
            "and passwords would travel readable; add tls_server_config to web.config_file, listen on 127.0.0.1, "
            f"{insecure} encrypts"
        )
    return ""
