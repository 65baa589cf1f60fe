"""Keys that stand in several places of our files: how an address is reached, and what its answer must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from probed.config.values import PathText
from probed.model import Expect, Keys
from probed.strict_yaml import Strict

Misuse = tuple[tuple[str | int, ...], str]
"""(path below the map, what is wrong)"""


class BasicAuth(Strict):
    username: str = Field(min_length=1)
    password_file: PathText = Field(description="File with the password.")


class TlsFiles(Strict):
    """Whom we trust, and what we show when we are asked who we are."""

    ca_file: PathText | None = Field(default=None, description="CA to verify the server by, instead of the system's.")
    cert_file: PathText | None = Field(default=None, description="Client certificate, shown to this address only.")
    key_file: PathText | None = Field(default=None, description="Its key, unencrypted; default: in cert_file.")

    @property
    def given(self) -> list[str]:
        """The keys of this module that are set."""
        return [key for key in _ALL if getattr(self, key, None) is not None]

    def keys(self) -> Keys:
        return Keys(self.ca_file, self.cert_file, self.key_file)

    def misused(self, urls: Sequence[str]) -> list[Misuse]:
        """What does not go together, or not with the addresses that it is for."""
        wrong: list[Misuse] = []
        tls = [key for key in self.given if key in _TLS]
        if tls and not any(url.startswith("https:") for url in urls):
            wrong.append(((tls[0],), "means nothing without an https:// address"))
        if self.key_file is not None and self.cert_file is None:
            wrong.append((("key_file",), "needs the certificate that it belongs to: cert_file"))
        if {"bearer_token_file", "basic_auth"} <= set(self.given):
            wrong.append((("basic_auth",), "cannot stand beside bearer_token_file: a request carries one of them"))
        return wrong


class Secured(TlsFiles):
    """The same, with what goes into a request."""

    bearer_token_file: PathText | None = Field(
        default=None, description="File with a token, sent to this address only."
    )
    basic_auth: BasicAuth | None = Field(default=None, description="User and password, sent to this address only.")

    def keys(self) -> Keys:
        basic = self.basic_auth
        return Keys(
            self.ca_file, self.cert_file, self.key_file, self.bearer_token_file,
            basic.username if basic else None, basic.password_file if basic else None,
        )  # fmt: skip


class Expecting(Strict):
    """What an HTTP answer must be."""

    expect_status: list[Annotated[int, Field(ge=100, le=599)]] | None = Field(
        default=None, min_length=1, description="Any of these is healthy."
    )
    expect_json: dict[str, Any] | None = Field(
        default=None, min_length=1, description="Values that the JSON answer must hold, among others."
    )
    expect_body: str | None = Field(default=None, min_length=1, description="Text that the answer must contain.")

    def expect(self, product: str = "") -> Expect:
        return Expect(product, tuple(self.expect_status or ()), self.expect_json or {}, self.expect_body or "")


_TLS = ("ca_file", "cert_file", "key_file")
_ALL = (*_TLS, "bearer_token_file", "basic_auth")
