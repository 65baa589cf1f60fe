"""With which settings the daemon starts: what would leave a door open by accident is refused, with the remedies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probed.cli.sources import Source
from probed.config import load
from probed.config.settings import Settings
from probed.daemon import Daemon
from probed.errors import ConfigError
from tests.unit.certificates import Authority
from tests.unit.people import USERS
from tests.unit.test_web_config import replace_file

INSTANCES = "instances: [{name: orders, patroni: ['http://10.0.0.1:8008']}]\n"
TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
CERTIFICATES = (
    "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, "
    "client_auth_type: RequireAndVerifyClientCert}\n"
)
OUTSIDE = "listen: ['127.0.0.1:7432', '0.0.0.0:7432']"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Authority(tmp_path).issue("server")
    return tmp_path


def started(place: Path, web: str, people: str | None) -> str:
    """Empty when a daemon would start, else why not."""
    file = place / "probed.yml"
    if people is not None:
        (place / "web-config.yml").write_text(people)
        web = f"config_file: '{place / 'web-config.yml'}', {web}"
    file.write_text(INSTANCES + f"storage: {{path: '{place}'}}\nweb: {{{web}}}\n")
    try:
        Daemon(load.load_file(file, environ={}))
    except ConfigError as error:
        return str(error).replace(str(place), "HERE")
    return ""


@pytest.mark.parametrize(
    "web, people, why",
    [
        ("", None, ""),
        ("listen: ['[::1]:7432', 'localhost:7433']", None, ""),
        (OUTSIDE, None, "web.listen[1]: 0.0.0.0:7432 can be reached from other machines without authentication; listen on 127.0.0.1, name users and TLS in web.config_file, or set web.insecure: true if something in front of it authenticates"),
        (f"{OUTSIDE}, insecure: true", None, ""),
        ("", USERS, ""),
        ("", "", ""),
        (OUTSIDE, "", "web.listen[1]: 0.0.0.0:7432 can be reached from other machines and web.config_file knows nobody who may; add basic_auth_users, or client certificates (client_auth_type), listen on 127.0.0.1, or set web.insecure: true if something in front of it authenticates"),
        (OUTSIDE, TLS, "web.listen[1]: 0.0.0.0:7432 can be reached from other machines and web.config_file knows nobody who may; add basic_auth_users, or client certificates (client_auth_type), listen on 127.0.0.1, or set web.insecure: true if something in front of it authenticates"),
        (OUTSIDE, USERS, "web.listen[1]: 0.0.0.0:7432 can be reached from other machines and passwords would travel readable; add tls_server_config to web.config_file, listen on 127.0.0.1, or set web.insecure: true if something in front of it encrypts"),
        (f"{OUTSIDE}, insecure: true", USERS, ""),
        (OUTSIDE, TLS + USERS, ""),
        (OUTSIDE, CERTIFICATES, ""),
        (OUTSIDE, "basic_auth_users: {a: b}", "HERE/web-config.yml:1:23: basic_auth_users.a: expected a bcrypt hash"),
        ("roles: {olga: operator}", None, "web.roles: means nothing without people: name a web.config_file with basic_auth_users"),
        ("roles: {olgaa: operator}", USERS, 'web.roles.olgaa: web.config_file has no user "olgaa"; did you mean "olga"?'),
        ("roles: {olgaa: operator}", CERTIFICATES, ""),
        ("roles: {olga: root}", USERS, 'web.roles.olga: expected viewer, operator or admin, got "root"'),
        ("default_role: none", USERS, 'web.default_role: expected viewer, operator or admin, got "none"'),
        ("external_url: 'ops.example'", None, 'web.external_url: expected an address such as http://10.0.0.1:8008, got "ops.example"'),
        ("external_url: 'https://ops.example/x?y=1'", None, 'web.external_url: expected an address without "?" and "#"'),
        ("allowed_hosts: ['ops.example:443']", None, "web.allowed_hosts[0]: expected the name of a host, without a port"),
    ],
)  # fmt: skip
def test_what_starts_and_what_does_not(place: Path, web: str, people: str | None, why: str) -> None:
    told = started(place, web, people)
    assert (why in told) if why else (told == "")
    assert len(told.splitlines()) <= 1


def test_a_mistake_in_the_settings_is_told_with_its_place(place: Path) -> None:
    (place / "web-config.yml").write_text(USERS)
    told = started(place, f"{OUTSIDE}, roles: {{nobody: admin}}", USERS)
    places = re.findall(r"^HERE/probed\.yml:3:\d+: web\.(\w+)", told, re.MULTILINE)
    assert places == ["listen", "roles"]


def test_an_address_that_a_flag_names_is_held_against_the_people_too(place: Path) -> None:
    (place / "web-config.yml").write_text(TLS)
    file = place / "probed.yml"
    file.write_text(INSTANCES + f"web: {{config_file: '{place / 'web-config.yml'}'}}\n")
    assert Source(file).read().web.listen == ["127.0.0.1:7432"]
    with pytest.raises(ConfigError, match=r"web\.config_file knows nobody who may"):
        Source(file, listen=["0.0.0.0:7432"]).read()


def test_people_are_named_by_a_flag_too(place: Path) -> None:
    (place / "web-config.yml").write_text(TLS + USERS)
    short = Source(patroni=["http://10.0.0.1:8008"], listen=["0.0.0.0:7432"], web_config=place / "web-config.yml")
    assert short.read().web.config_file == place / "web-config.yml"
    (place / "web-config.yml").write_text(USERS)
    with pytest.raises(ConfigError, match="passwords would travel readable"):
        short.read()


def test_a_file_that_loses_its_people_while_the_daemon_runs_is_not_taken(place: Path) -> None:
    file = place / "web-config.yml"
    file.write_text(TLS + USERS)
    web = {"config_file": file, "listen": ["0.0.0.0:7432"]}
    instances = [{"name": "orders", "patroni": ["http://10.0.0.1:8008"]}]
    daemon = Daemon(Settings.model_validate({"instances": instances, "storage": {"path": place}, "web": web}))
    assert daemon.web_file is not None
    replace_file(file, TLS)
    daemon.web_file._looked_at -= 2
    assert len(daemon.web_file.config.basic_auth_users) == 3 and not daemon.web_file.last_ok
