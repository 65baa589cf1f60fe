"""TLS files and credentials of etcd, HAProxy and Patroni: where they may stand, and whom they reach."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from probed import discovery
from probed.cli.once import sample_once
from probed.config import load
from probed.config.settings import Instance, Settings
from probed.errors import ConfigError
from probed.model import Outcome
from probed.probes._access import Access
from probed.probes._http import HttpClient
from probed.reaching import patroni_access, reaches
from probed.store import Member
from tests.hostile import Line
from tests.unit.certificates import Authority, over_tls

CLUSTER = {
    "scope": "demo",
    "members": [
        {
            "name": "a",
            "role": "leader",
            "state": "running",
            "host": "127.0.0.1",
            "port": 1,
            "api_url": "",
            "timeline": 1,
        }
    ],
}
OWN = {"state": "running", "role": "primary", "timeline": 1, "patroni": {"name": "a", "scope": "demo"}}


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def told(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "probed.yml"
    file.write_text(f"instances:\n- name: orders\n{text}")
    try:
        load.load_file(file, environ={})
    except ConfigError as error:
        return [str(problem).partition("probed.yml:")[2] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  etcd: [https://x:1]\n  etcd_access: {ca_file: /no/such}\n",
         '4:26: instances[0].etcd_access.ca_file: cannot read "/no/such": there is no such regular file'),
        ("  etcd: [http://x:1]\n  etcd_access: {ca_file: /dev/null}\n",
         '4:26: instances[0].etcd_access.ca_file: cannot read "/dev/null": there is no such regular file'),
        ("  patroni: [https://x]\n  patroni_access: {basic_auth: {username: u, password_file: p}}\n",
         '4:20: instances[0].patroni_access.basic_auth: unknown key "basic_auth"; known here: ca_file, cert_file, key_file'),
        ("  haproxy: {stats: 'unix:/s', basic_auth: {username: u, password_file: FILE}}\n",
         "3:43: instances[0].haproxy.basic_auth: means nothing without statistics over HTTP (stats: http://…)"),
        ("  haproxy: {stats: 'http://x', ca_file: FILE}\n",
         "3:41: instances[0].haproxy.ca_file: means nothing without an https:// address"),
        ("  etcd: [https://x]\n  etcd_access: {key_file: FILE}\n",
         "4:27: instances[0].etcd_access.key_file: needs the certificate that it belongs to: cert_file"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    present = tmp_path / "f"
    present.write_text("x")
    assert expected in told(tmp_path, text.replace("FILE", str(present)))


def test_the_contracts_forms_stay_valid_and_mean_no_access() -> None:
    instance = Instance.model_validate(
        {
            "name": "o",
            "etcd": ["http://x:2379"],
            "haproxy": {"stats": "http://x:7000/;csv"},
            "patroni": ["http://x:8008"],
        }
    )
    assert {reach.access for reach in reaches(instance, ())} == {None}


def test_every_member_of_etcd_gets_credentials_bound_to_itself() -> None:
    access = {"bearer_token_file": Path("/t"), "ca_file": Path("/ca")}
    instance = Instance.model_validate({"name": "o", "etcd": ["https://x:1", "https://y:1"], "etcd_access": access})
    assert [reach.access for reach in reaches(instance, ())] == [
        Access(url, Path("/ca"), bearer_token_file=Path("/t")) for url in ("https://x:1", "https://y:1")
    ]


def test_an_access_for_several_addresses_is_for_these_and_no_other() -> None:
    access = Access("https://a:8008", bearer_token_file=Path("/t"), also=("https://b:8008",))
    seen = {url: access.credential_for(url) for url in (
        "https://a:8008/cluster", "https://b:8008/x", "http://a:8008/", "https://b:8009/", "https://c:8008/",
    )}  # fmt: skip
    assert [url for url, credential in seen.items() if credential] == ["https://a:8008/cluster", "https://b:8008/x"]


def test_members_that_patroni_lists_are_reached_like_the_declared_ones() -> None:
    access = {"ca_file": Path("/ca"), "cert_file": Path("/c")}
    instance = Instance.model_validate({"name": "o", "patroni": ["https://a:8008"], "patroni_access": access})
    found = {
        reach.target.kind: reach.access for reach in reaches(instance, (Member("o", "b", "b", 5432, "https://b:8008"),))
    }
    ours = Access("https://a:8008", Path("/ca"), Path("/c"), also=("https://b:8008",))
    assert found == {
        "postgres": None,
        "patroni": Access("https://b:8008", Path("/ca"), Path("/c")),
        "patroni_cluster": ours,
    }


async def test_a_patroni_that_verifies_its_clients_is_discovered_and_probed(http: HttpClient, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("probed")

    async def patroni(line: Line) -> None:
        while True:
            head = await line.request()
            answer: Any = OWN if head.startswith(b"GET /patroni ") else CLUSTER
            body = json.dumps(answer).encode()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    keys = {"ca_file": authority.file, "cert_file": client.cert, "key_file": client.key}
    async with over_tls(server.server(clients_of=authority.file), patroni) as url:
        CLUSTER["members"][0]["api_url"] = f"{url}/patroni"  # type: ignore[index]
        given = Instance.model_validate({"name": "orders", "patroni": [url], "patroni_access": keys})
        scope, members = await discovery.discover([url], http, 10.0, "orders", patroni_access(given, [url]))
        assert (scope, [member.name for member in members]) == ("demo", ["a"])
        found = await sample_once(Settings.model_validate({"instances": [given.model_dump()]}))
        outcomes = {sample.probe: sample.outcome for sample in found.samples if sample.probe.startswith("patroni")}
        assert outcomes == dict.fromkeys(("patroni_cluster", "patroni_rest", "patroni_member"), Outcome.OBSERVED)
        blind = await sample_once(Settings.model_validate({"instances": [{"name": "orders", "patroni": [url]}]}))
        assert {sample.outcome for sample in blind.samples if sample.probe == "patroni_cluster"} == {Outcome.BLIND}
