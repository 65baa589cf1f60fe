"""What a policy of one's own asks, on the generic probes ``http``, ``tcp`` and ``sql``: the keys of its file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from probed.config.access import Expecting, Secured
from probed.config.values import HostPort, Name, http_url, split_address
from probed.model import HttpQuestion, Question, SqlQuestion, TcpQuestion
from probed.strict_yaml import Misplaced, Strict

GENERIC = ("http", "tcp", "sql")
"""The probes that ask what the policy says, under the key of their name."""
MAX_STATEMENT = 10_000


def _statement(text: str) -> str:
    stripped = text.strip().rstrip(";").rstrip()
    if not stripped:
        raise ValueError("expected one SQL statement that returns a value, such as SELECT count(*) FROM public.jobs")
    if "\0" in stripped:
        raise ValueError("expected one SQL statement, got one with a NUL character in it")
    return stripped


def _as_it_stands(value: str) -> str:
    http_url(value)
    return value


class Http(Secured, Expecting):
    """One HTTP request, and what its answer must be."""

    url: Annotated[str, AfterValidator(_as_it_stands)] = Field(description="Asked as it stands.")
    method: Literal["GET", "HEAD"] = "GET"

    @model_validator(mode="after")
    def _consistent(self) -> Http:
        wrong = self.misused([self.url])
        if self.method == "HEAD" and (self.expect_json or self.expect_body):
            key = "expect_json" if self.expect_json else "expect_body"
            wrong.append(((key,), "means nothing with method: HEAD, whose answer has no body"))
        if wrong:
            raise Misplaced(*wrong)
        return self

    def question(self) -> HttpQuestion:
        return HttpQuestion(self.url, self.method, self.expect(), self.keys())


class Tcp(Strict):
    """A port that must accept a connection; nothing is sent."""

    address: HostPort = Field(description='Such as "10.0.0.5:25".')

    def question(self) -> TcpQuestion:
        return TcpQuestion(*split_address(self.address))


class Sql(Strict):
    """One statement that reads one value, in a read-only transaction with the probed role's privileges."""

    statement: Annotated[str, AfterValidator(_statement)] = Field(
        max_length=MAX_STATEMENT, description="Names outside pg_catalog with their schema: public.jobs."
    )
    on: Name = Field(default="primary", description="primary (follows the leader), replicas, every, or a node's name.")
    database: str | None = Field(default=None, min_length=1, description="Default: that of the node's own probes.")
    expect: bool | int | float | str | None = Field(
        default=None, description="The value that is right; another one is a failed sample."
    )

    def question(self, alone: bool) -> SqlQuestion:
        expect = float(self.expect) if type(self.expect) is int else self.expect
        return SqlQuestion(self.statement, self.on, self.database or "", expect, alone)


def question(probe: str, http: Http | None, tcp: Tcp | None, sql: Sql | None, alone: bool) -> Question | None:
    """The question that stands under the probe's own key; ``alone``: on a connection of its own."""
    match probe:
        case "http":
            return http.question() if http else None
        case "tcp":
            return tcp.question() if tcp else None
        case "sql":
            return sql.question(alone) if sql else None
        case _:
            return None
