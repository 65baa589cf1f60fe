"""Components of a stack beside the database: what may be said of them, and what does not go together."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, model_validator

from probed.config.access import Expecting, Secured
from probed.config.values import ComponentUrl, HttpUrl, Name
from probed.strict_yaml import Misplaced

GATEWAYS = ("kong", "envoy", "generic")
SERVICES = ("auth", "rest", "realtime", "storage", "studio")
PRESETS = ("meta", "functions", "imgproxy", "analytics", "logflare", "vector", "supavisor")
NAMED = ("kong", *SERVICES, *PRESETS)
"""Names under which a component is taken for that product without a ``type``."""
DEEP = ("realtime", "storage", "rest", "meta")
"""Products that can be asked how they fare with the database."""
RESERVED = ("postgres", "patroni", "etcd", "haproxy", "host")


class Component(Secured, Expecting):
    url: ComponentUrl = Field(
        description="Base address; the probe knows the path. With expect_*, or an unknown name: asked as it stands."
    )
    type: str | None = Field(
        default=None,
        description="Which product it is, when the name does not say: kong, envoy or generic (a gateway), auth …",
    )
    admin_url: HttpUrl | None = Field(
        default=None, description="PostgREST's admin server (then decides); Kong's status or Envoy's admin (annotates)."
    )
    deep: bool = Field(
        default=False,
        description="Also ask, once a minute, how it fares with the database (realtime, storage, rest, meta).",
    )
    tenant: Name | None = Field(default=None, description="Realtime's tenant that deep asks for; default realtime-dev.")

    @model_validator(mode="after")
    def _consistent(self) -> Component:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        known = tuple(dict.fromkeys((*GATEWAYS, *NAMED)))
        if self.type is not None and self.type not in known:
            wrong.append((("type",), f'expected one of {", ".join(known)}, got "{self.type}"'))
        over_http = [key for key in _HTTP_ONLY if getattr(self, key) is not None]
        if self.url.startswith("tcp:") and over_http:
            wrong.append(((over_http[0],), "means nothing for a tcp:// address, which is only connected to"))
        wrong += self.misused([url for url in (self.url, self.admin_url) if url])
        if wrong:
            raise Misplaced(*wrong)
        return self

    def type_as(self, name: str) -> str:
        """Which product a component of that name is; empty when nobody said."""
        return self.type or (name if name in NAMED else "")

    def misfits(self, name: str) -> list[tuple[str, str]]:
        """(key, message) of what does not go with what the component is."""
        wrong = []
        product = self.type_as(name)
        expects = self.expect().given
        if name in RESERVED:
            wrong.append(("", f'"{name}" has a place of its own in an instance; choose another name'))
        if self.url.startswith("tcp:") and product in (*GATEWAYS, *SERVICES):
            wrong.append(("url", f"{name} is probed over HTTP: expected an http:// or https:// address"))
        if self.admin_url is not None and (expects or product not in ("kong", "envoy", "rest")):
            wrong.append(("admin_url", "is used for kong, envoy and rest only, and not together with expect_*"))
        if product in GATEWAYS and not expects and (self.bearer_token_file or self.basic_auth):
            key = "bearer_token_file" if self.bearer_token_file else "basic_auth"
            wrong.append((key, "a gateway is asked without credentials: that it refuses shows that it works"))
        if product in (*GATEWAYS, *SERVICES) and not expects and urlsplit(self.url).query:
            wrong.append(("url", "expected a base address without a query; with expect_* it is asked as it stands"))
        return wrong + self._deep_misfits(name, product, expects)

    def _deep_misfits(self, name: str, product: str, expects: bool) -> list[tuple[str, str]]:
        if self.tenant is not None and (product != "realtime" or not self.deep):
            return [("tenant", "is used for realtime with deep: true only")]
        if not self.deep:
            return []
        if expects or product not in DEEP:
            return [("deep", f"is there for {', '.join(DEEP)}, and not together with expect_*")]
        if product == "rest" and self.admin_url is None:
            return [("deep", "needs PostgREST's admin server, whose /ready it asks: admin_url")]
        if product in ("realtime", "storage") and self.bearer_token_file is None:
            return [("deep", f"needs a token, without which {name} says nothing: bearer_token_file")]
        return []


_HTTP_ONLY = (
    "admin_url", "expect_status", "expect_json", "expect_body", "ca_file", "cert_file", "key_file",
    "bearer_token_file", "basic_auth",
)  # fmt: skip
