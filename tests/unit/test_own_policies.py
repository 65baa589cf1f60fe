"""Policies that bring their own question: from one file to target, pace, sample and verdict; mistakes with their place."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from probed import docs
from probed.api import shapes
from probed.cli import cli, schema
from probed.cli.nagios import CRITICAL, OK, WARNING, line
from probed.clock import SystemClock
from probed.config.settings import Defaults, Settings
from probed.errors import ConfigError
from probed.model import HttpQuestion, Outcome, Policy, Sample, Severity, SqlQuestion, Target, TcpQuestion
from probed.policy import examples
from probed.policy.load import load
from probed.policy.site import Site
from probed.probes import catalogue
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import take_sample
from probed.topology import Shape, causes
from probed.watching import Cycle, InstancePlan, plan
from tests.hostile import HTTP, answering, listening, refusing
from tests.leaks import unstarved

CATALOGUE = catalogue()
READINGS = {name: frozenset(probe.readings) for name, probe in CATALOGUE.items()}
PATIENT = 10.0
NODES: list[dict[str, Any]] = [
    {"name": "a", "postgres": {"host": "10.0.0.1"}},
    {"name": "b", "postgres": {"host": "10.0.0.2"}},
]
TWO = {
    "policies": {"allow_sql": True},
    "instances": [{"name": "orders", "nodes": NODES}, {"name": "stock", "nodes": NODES}],
}
ONE = {"policies": {"allow_sql": True}, "instances": [{"name": "orders", "nodes": NODES}]}

HEAD = "id: mine\nname: Mine\nseverity: normal\n"
RULE = "detect: {type: threshold, when: failed, count: 2}\n"


def loaded(folder: Path, text: str, settings: dict[str, Any] = ONE) -> Policy:
    (folder / "mine.yaml").write_text(text)
    given = Settings.model_validate(settings)
    return load(folder, READINGS, given.defaults, site=Site.of(given))["mine"]


def planned(policy: Policy, settings: dict[str, Any] = ONE, index: int = 0) -> InstancePlan:
    given = Settings.model_validate(settings)
    return plan(given.instances[index], (), {policy.id: policy}, CATALOGUE, given.defaults)


def own(found: InstancePlan) -> list[Cycle]:
    return [cycle for cycle in found.cycles if cycle.reach.question is not None]


def problems(folder: Path, text: str, settings: dict[str, Any] = ONE) -> list[str]:
    with pytest.raises(ConfigError) as told:
        loaded(folder, text, settings)
    return [str(problem).partition("mine.yaml:")[2] for problem in told.value.problems]


# --- what a file says -----------------------------------------------------------------------------------------------


def test_a_file_carries_its_question_under_the_key_of_its_probe(tmp_path: Path) -> None:
    http = loaded(tmp_path, HEAD + RULE + "probe: http\nhttp: {url: 'http://x/a/', expect_status: [200, 204]}\n")
    assert isinstance(http.question, HttpQuestion)
    assert (http.question.url, http.question.method, http.question.expect.status) == ("http://x/a/", "GET", (200, 204))
    tcp = loaded(tmp_path, HEAD + RULE + 'probe: tcp\ntcp: {address: "[::1]:25"}\n')
    assert tcp.question == TcpQuestion("::1", 25)
    sql = loaded(tmp_path, HEAD + RULE + "probe: sql\nsql: {statement: SELECT 1;, expect: 1}\n")
    assert sql.question == SqlQuestion("SELECT 1", expect=1.0)
    assert shapes.policy(sql)["sql"] == {"statement": "SELECT 1", "on": "primary", "expect": 1.0}
    assert shapes.policy(tcp)["tcp"] == {"address": "[::1]:25"}


def test_the_documented_policies_work(tmp_path: Path) -> None:
    text = (docs.DIRECTORY / "own-policies.md").read_text(encoding="utf-8")
    written = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)
    assert len(written) == 4
    for number, block in enumerate(written):
        (tmp_path / f"{number}.yaml").write_text(block)
    given = Settings.model_validate(ONE)
    policies = load(tmp_path, READINGS, given.defaults, site=Site.of(given))
    for name in ("lag_grave", "shop_front", "mail_relay", "jobs_waiting"):
        assert examples.run(policies[name]) == []
    assert sum(len(policies[name].examples) for name in ("shop_front", "jobs_waiting")) == 2


@pytest.mark.parametrize(
    "text, told",
    [
        ("probe: http\n", '5:8: probe: probe "http" asks what the policy says: the key "http" is missing'),
        ("probe: sql\ntcp: {address: 'x:1'}\nsql: {statement: SELECT 1}\n", "6:1: tcp: means nothing with probe: sql; write probe: tcp"),
        ("probe: etcd_quorum\nhttp: {url: 'http://x'}\n", "6:1: http: means nothing with probe: etcd_quorum; write probe: http"),
        ("probe: http\nhttp: {url: ftp://x}\n", '6:13: http.url: expected an address such as http://10.0.0.1:8008, got "ftp://x"'),
        ("probe: http\nhttp: {url: 'http://x', expect_sttus: [200]}\n", '6:25: http.expect_sttus: unknown key "expect_sttus"; did you mean "expect_status"?'),
        ("probe: http\nhttp: {url: 'http://x', ca_file: /x}\n", "6:34: http.ca_file: means nothing without an https:// address"),
        ("probe: http\nhttp: {url: 'http://x', bearer_token_file: /no/such}\n", '6:44: http.bearer_token_file: cannot read "/no/such": there is no such regular file'),
        ("probe: http\nhttp: {url: 'http://x', method: HEAD, expect_body: x}\n", "6:52: http.expect_body: means nothing with method: HEAD, whose answer has no body"),
        ("probe: tcp\ntcp: {address: x}\n", '6:16: tcp.address: expected host:port, got "x"'),
        ("probe: sql\nsql: {statement: ' ; '}\n", "6:18: sql.statement: expected one SQL statement that returns a value, such as SELECT count(*) FROM public.jobs"),
        ("probe: sql\nsql: {statement: SELECT 1, on: primry}\n", "6:32: sql.on: expected primary, replicas, every or a node's name, got \"primry\"; did you mean \"primary\"?"),
        ("probe: sql\nsql: {statement: SELECT 1}\ninstances: [order]\n", '7:13: instances[0]: there is no instance "order"; did you mean "orders"?'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_to_write(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, HEAD + RULE + text) == [told]


def test_sql_is_off_until_the_configuration_allows_it(tmp_path: Path) -> None:
    text = HEAD + RULE + "probe: sql\nsql: {statement: SELECT 1}\n"
    closed = {"instances": ONE["instances"]}
    (told,) = problems(tmp_path, text, closed)
    assert told.startswith("5:8: probe: policies that bring SQL are off; set policies.allow_sql: true in probed.yml")
    assert own(planned(loaded(tmp_path, text + "enabled: false\n", closed))) == []


def test_with_several_instances_an_address_needs_one(tmp_path: Path) -> None:
    text = HEAD + RULE + "probe: tcp\ntcp: {address: 'x:1'}\n"
    (told,) = problems(tmp_path, text, TWO)
    assert "to which instance does it belong? Write instances: [NAME]; there are: orders, stock" in told
    policy = loaded(tmp_path, text + "instances: [stock]\n", TWO)
    assert [own(planned(policy, TWO, index)) != [] for index in (0, 1)] == [False, True]


def test_a_target_is_never_called_like_a_part_of_every_instance(tmp_path: Path) -> None:
    text = (HEAD + RULE).replace("id: mine", "id: postgres") + "probe: tcp\ntcp: {address: 'x:1'}\n"
    assert problems(tmp_path, text)[0].startswith("1:5: id: its target would be called")


def test_any_policy_can_be_limited_to_instances(tmp_path: Path) -> None:
    policy = loaded(tmp_path, HEAD + RULE + "probe: postgres_liveness\ninstances: [stock]\n", TWO)
    watched = [[target.instance for _, target in planned(policy, TWO, index).watches] for index in (0, 1)]
    assert watched == [[], ["stock", "stock"]]


# --- what it becomes ------------------------------------------------------------------------------------------------


def test_its_target_is_its_own_and_goes_at_its_own_pace(tmp_path: Path) -> None:
    text = HEAD + RULE + "probe: sql\nsql: {statement: SELECT 1}\ninterval: 30s\n"
    policy = loaded(tmp_path, text)
    other = replace(policy, id="other", interval=10.0, timeout=4.0)
    given = Settings.model_validate(ONE)
    found = plan(given.instances[0], (), {"mine": policy, "other": other}, CATALOGUE, Defaults())
    assert {(c.reach.target.key, c.interval, c.timeout) for c in own(found)} == {
        ("orders/a/mine", 30.0, 2.0), ("orders/b/mine", 30.0, 2.0),
        ("orders/a/other", 10.0, 4.0), ("orders/b/other", 10.0, 4.0),
    }  # fmt: skip
    assert {(judge.id, target.component) for judge, target in found.watches} == {("mine", "mine"), ("other", "other")}
    assert (30.0 in found.intervals, 10.0 in found.intervals) == (True, True)


def test_statements_share_the_nodes_session_unless_they_need_another_or_longer(tmp_path: Path) -> None:
    def sessions(more: str = "", policy: str = "") -> set[str]:
        text = HEAD + RULE + f"probe: sql\nsql: {{statement: SELECT 1, on: a{more}}}\n{policy}"
        (cycle,) = own(planned(loaded(tmp_path, text)))
        assert cycle.reach.login is not None
        return {cycle.reach.session_key, cycle.reach.login.database}

    assert sessions() == {"orders/a/postgres", "postgres"}
    assert sessions(", database: postgres") == {"orders/a/postgres", "postgres"}
    assert sessions(", database: shop") == {"orders/a/postgres/sql/shop", "shop"}
    assert sessions("", "timeout: 3s\n") == {"orders/a/postgres/sql/postgres", "postgres"}


def test_what_it_finds_on_a_server_that_is_gone_is_that_servers_doing(tmp_path: Path) -> None:
    policy = loaded(tmp_path, HEAD + RULE + "probe: sql\nsql: {statement: SELECT 1}\n")
    target = Target("orders", "a", "mine", "10.0.0.1:5432", kind="sql")
    assert causes(Shape(("a", "b"), "a"), policy, target) == [("database_unavailable", "a")]


# --- what is asked --------------------------------------------------------------------------------------------------


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def asked(http: HttpClient, policy: Policy, deadline: float = PATIENT) -> Sample:
    (cycle,) = own(planned(policy))
    return await take_sample(cycle.probe, context_for(cycle.reach, deadline, http), deadline, SystemClock())


async def test_an_address_is_asked_as_it_stands_and_judged_as_the_file_says(tmp_path: Path, http: HttpClient) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with listening(answering(b'{"ok": true, "more": 1}')) as peer:
        text = (
            f"probe: http\nhttp: {{url: '{peer.url}/a/?b=c', expect_json: {{ok: true}}, bearer_token_file: {token}}}\n"
        )
        taken = await asked(http, loaded(tmp_path, HEAD + RULE + text))
        assert taken.outcome is Outcome.OBSERVED, taken
        assert set(taken.readings) == {"http_status", "response_seconds"}
        assert peer.requests[0].startswith(b"GET /a/?b=c HTTP/1.1\r\n")
        assert b"Authorization: Bearer s3cret\r\n" in peer.requests[0]
        assert "b=c" not in repr(taken)
        policy = loaded(tmp_path, HEAD + RULE + text.replace("ok: true", "ok: false"))
        taken = await asked(http, policy)
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "body")
        assert line(CATALOGUE["http"], [taken], {"mine": policy})[1] == CRITICAL


def test_a_plugin_line_judges_a_value_by_its_own_policy_alone(tmp_path: Path) -> None:
    rule = 'detect: {type: threshold, when: "value >= most", count: 2}\nparams: {most: 100}\n'
    policy = loaded(tmp_path, HEAD + rule + "probe: sql\nsql: {statement: SELECT 1}\n")
    other = replace(policy, id="other")
    target = Target("orders", "a", "mine", kind="sql")
    for value, code in ((99.0, OK), (100.0, WARNING)):
        sample = Sample(target, "sql", Outcome.OBSERVED, 0.0, 0.0, readings={"value": value, "text": "x"})
        text, found = line(
            CATALOGUE["sql"], [sample], {"mine": policy, "other": replace(other, severity=Severity.FATAL)}
        )
        assert (found, text.partition(" | ")[2]) == (code, f"'value'={value:g};100")
    gone = Sample(target, "sql", Outcome.NOT_APPLICABLE, 0.0, 0.0)
    assert line(CATALOGUE["sql"], [gone], {"mine": policy})[1] == OK


async def test_head_asks_for_no_body(tmp_path: Path, http: HttpClient) -> None:
    async with listening(answering(b"")) as peer:
        policy = loaded(tmp_path, HEAD + RULE + f"probe: http\nhttp: {{url: '{peer.url}', method: HEAD}}\n")
        assert (await asked(http, policy)).outcome is Outcome.OBSERVED
        assert peer.requests[0].startswith(b"HEAD / ")


async def test_a_port_is_connected_to_and_told_nothing(tmp_path: Path, http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as peer:
        policy = loaded(tmp_path, HEAD + RULE + f'probe: tcp\ntcp: {{address: "127.0.0.1:{peer.port}"}}\n')
        taken = await asked(http, policy)
        assert (taken.outcome, set(taken.readings)) == (Outcome.OBSERVED, {"connect_seconds"})
        assert peer.requests == []
    policy = loaded(tmp_path, HEAD + RULE + f'probe: tcp\ntcp: {{address: "127.0.0.1:{refusing()}"}}\n')
    taken = await asked(http, policy)
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused")


@pytest.mark.parametrize("name", HTTP)
async def test_a_hostile_address_fails_its_own_sample(tmp_path: Path, http: HttpClient, name: str) -> None:
    async with listening(HTTP["accept_and_hang"]) as other, listening(HTTP[name], elsewhere=other.url) as peer:
        policy = loaded(tmp_path, HEAD + RULE + f"probe: http\nhttp: {{url: '{peer.url}', expect_json: {{a: 1}}}}\n")
        hangs = name in ("accept_and_hang", "slow_headers", "slow_body", "hang_in_body")
        taken = await unstarved(lambda: asked(http, policy, 0.4 if hangs else PATIENT))
        assert taken.outcome is Outcome.FAILED, taken
        assert taken.reason.isprintable()
        assert other.accepted == 0


# --- at the command line --------------------------------------------------------------------------------------------


def test_every_command_knows_it(tmp_path: Path) -> None:
    folder, file, port = tmp_path / "policies.d", tmp_path / "probed.yml", refusing()
    folder.mkdir()
    example = "examples:\n  - {says: twice, samples: F F ok ok, events: . O . R}\n"
    (folder / "mine.yaml").write_text(HEAD + RULE + f'probe: tcp\ntcp: {{address: "127.0.0.1:{port}"}}\n' + example)
    file.write_text(f"policies: {{directory: {folder}}}\ninstances: [{{name: orders, nodes: [{{name: a}}]}}]\n")

    def said(*command: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, list(command))
        return result.exit_code, result.stdout

    local = ("--local", "--policies.directory", str(folder))
    assert said("check", str(file)) == (0, f"{file}: ok\n")
    code, text = said("policy", "test", str(folder / "mine.yaml"))
    assert (code, "ok    twice" in text) == (0, True)
    code, text = said("policy", "show", "mine", *local)
    assert (code, f"127.0.0.1:{port}" in text) == (0, True)
    assert "mine" in said("policy", "list", *local)[1]
    code, text = said("doctor", "--config.file", str(file), "-o", "json")
    (row,) = [row for row in json.loads(text)["items"] if row["target"] == "orders/mine"]
    assert (code, row["probe"], row["outcome"]) == (1, "tcp", "failed")
    code, text = said("probe", "run", "tcp", "--config.file", str(file), "--target", "mine", "--format", "nagios")
    assert (code, text) == (2, f"PROBED CRITICAL - tcp: orders/mine: 127.0.0.1:{port}: connection refused\n")


def test_the_schema_for_editors_knows_the_questions(tmp_path: Path) -> None:
    _, complete = schema.policy()["anyOf"]
    assert {"http", "tcp", "sql", "instances"} <= complete["properties"].keys()
