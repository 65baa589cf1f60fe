"""Components in probed.yml: what is accepted, what they become, and where each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from probed.config import load
from probed.config.settings import Defaults, Settings
from probed.errors import ConfigError
from probed.model import Expect, Target
from probed.probes import catalogue
from probed.probes._access import Access
from probed.reaching import Reach
from probed.watching import plan

HEAD = "instances:\n- name: a\n  components:\n"


def loaded(tmp_path: Path, components: str) -> Settings:
    file = tmp_path / "probed.yml"
    file.write_text(HEAD + "".join(f"    {line}\n" for line in components.splitlines()))
    return load.load_file(file, environ={})


def reaches(tmp_path: Path, components: str) -> dict[str, Reach]:
    (instance,) = loaded(tmp_path, components).instances
    return {reach.target.component: reach for reach in plan(instance, (), {}, catalogue(), Defaults()).reaches}


CONTRACT = """\
kong:     {url: http://10.0.0.1:8000}
auth:     {url: http://10.0.0.1:9999}
rest:     {url: http://10.0.0.1:3000, admin_url: http://10.0.0.1:3001}
realtime: {url: http://10.0.0.1:4000}
storage:  {url: http://10.0.0.1:5000}
studio:   {url: http://10.0.0.1:3000}
meta:     {url: http://10.0.0.1:8080/health}
functions: {url: http://10.0.0.1:9000/, expect_status: [200, 400, 401]}
"""


def test_the_components_of_the_contract_are_targets_of_their_own(tmp_path: Path) -> None:
    found = reaches(tmp_path, CONTRACT)
    assert {name: reach.target.kind for name, reach in found.items()} == {
        "kong": "kong", "auth": "auth", "rest": "rest", "realtime": "realtime", "storage": "storage",
        "studio": "studio", "meta": "component", "functions": "component",
    }  # fmt: skip
    assert found["meta"].target == Target("a", "", "meta", "http://10.0.0.1:8080/health", kind="component")
    assert {reach.target.key for reach in found.values()} == {f"a/{name}" for name in found}
    assert found["rest"].urls == ("http://10.0.0.1:3000", "http://10.0.0.1:3001")
    assert found["functions"].expect == Expect("functions", (200, 400, 401))
    assert found["kong"].expect == Expect("kong")
    assert not found["kong"].expect.given


def test_components_have_an_effect(tmp_path: Path) -> None:
    assert load.not_used_yet(loaded(tmp_path, CONTRACT)) == []


@pytest.mark.parametrize(
    "name, type_, kind, product",
    [
        ("kong", "envoy", "kong", "envoy"),
        ("edge", "generic", "kong", "generic"),
        ("auth-eu", "auth", "auth", "auth"),
        ("pgmeta", "meta", "component", "meta"),
        ("envoy", None, "component", ""),
        ("generic", None, "component", ""),
        ("mine", None, "component", ""),
    ],
)
def test_name_and_type_tell_what_a_component_is(
    tmp_path: Path, name: str, type_: str | None, kind: str, product: str
) -> None:
    given = f", type: {type_}" if type_ else ""
    reach = reaches(tmp_path, f"{name}: {{url: 'http://h:1'{given}}}")[name]
    assert (reach.target.kind, reach.expect.type) == (kind, product)


def test_files_and_users_become_an_access(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key", "token", "password"):
        (tmp_path / name).write_text("x")
    found = reaches(
        tmp_path,
        f"one: {{url: 'https://h:1', ca_file: {tmp_path}/ca, cert_file: {tmp_path}/cert, key_file: {tmp_path}/key,"
        f" bearer_token_file: {tmp_path}/token}}\n"
        f"two: {{url: 'http://h:1', basic_auth: {{username: me, password_file: {tmp_path}/password}}}}",
    )
    assert found["one"].access == Access(
        "https://h:1", tmp_path / "ca", tmp_path / "cert", tmp_path / "key", tmp_path / "token"
    )
    assert found["two"].access == Access("http://h:1", user="me", password_file=tmp_path / "password")


def test_every_missing_file_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(
            tmp_path,
            "one: {url: 'https://h:1', ca_file: /no/ca, cert_file: /no/cert, key_file: /no/key, bearer_token_file: /no/t}\n"
            "two: {url: 'http://h:1', basic_auth: {username: me, password_file: /no/password}}",
        )
    assert [(problem.line, problem.path.rpartition(".")[2]) for problem in caught.value.problems] == [
        (4, "ca_file"), (4, "cert_file"), (4, "key_file"), (4, "bearer_token_file"), (5, "password_file"),
    ]  # fmt: skip
    assert all("there is no such regular file" in problem.message for problem in caught.value.problems)


@pytest.mark.parametrize(
    "components, expected",
    [
        ("kong: {url: 'ftp://h'}", ":4:17: instances[0].components.kong.url: expected an address such as http"),
        ("x: {url: 'http://me:secret@h'}", ".x.url: credentials do not belong into an address"),
        ("x: {url: 'tcp://h'}", '.x.url: expected an address such as tcp://10.0.0.1:6432, got "tcp://h"'),
        ("x: {url: 'tcp://h:0'}", ".x.url: expected an address such as tcp://"),
        ("x: {url: 'tcp://h:1/x'}", ".x.url: expected an address such as tcp://"),
        ("auth: {url: 'tcp://h:1'}", ".auth.url: auth is probed over HTTP"),
        ("x: {url: 'tcp://h:1', expect_body: a}", ".x.expect_body: means nothing for a tcp:// address"),
        ("x: {url: 'http://h', type: kng}", '.x.type: expected one of kong, envoy, generic, auth, '),
        ("x: {url: 'http://h', admin_url: 'http://h'}", ".x.admin_url: is used for kong, envoy and rest only"),
        ("rest: {url: 'http://h', admin_url: 'http://h', expect_status: [200]}", ".rest.admin_url: is used for"),
        ("x: {url: 'http://h', expect_status: []}", ".x.expect_status: expected at least 1 item"),
        ("x: {url: 'http://h', expect_status: [20]}", ".x.expect_status[0]: expected"),
        ("x: {url: 'http://h', expect_status: 200}", ".x.expect_status: expected a list"),
        ("x: {url: 'http://h', expect_body: ''}", ".x.expect_body: expected"),
        ("x: {url: 'http://h', expect_json: {}}", ".x.expect_json: expected"),
        ("x: {url: 'http://h', ca_file: FILE}", ".x.ca_file: means nothing without an https:// address"),
        ("x: {url: 'https://h', key_file: FILE}", ".x.key_file: needs the certificate"),
        ("x: {url: 'http://h', bearer_token_file: FILE, basic_auth: {username: a, password_file: FILE}}",
         ".x.basic_auth: cannot stand beside bearer_token_file"),
        ("x: {url: 'http://h', basic_auth: {username: a}}", '.x.basic_auth.password_file: required key'),
        ("kong: {url: 'http://h', bearer_token_file: FILE}", ".kong.bearer_token_file: a gateway is asked without"),
        ("auth: {url: 'http://h?x=y'}", ".auth.url: expected a base address without a query"),
        ("etcd: {url: 'http://h'}", 'components.etcd: "etcd" has a place of its own'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_component_is_told_with_its_place(tmp_path: Path, components: str, expected: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, components.replace("FILE", str(tmp_path / "file")))
    (problem,) = caught.value.problems
    assert expected in str(problem)
    assert problem.line == 4


def test_mistakes_of_several_components_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(
            tmp_path, "auth: {url: 'tcp://h:1'}\nx: {url: 'http://h', admin_url: 'http://h'}\nhost: {url: 'http://h'}"
        )
    assert [problem.line for problem in caught.value.problems] == [4, 5, 6]
