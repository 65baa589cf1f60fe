"""web-config.yml: what is taken, what is refused with its place, and that a change serves the next look."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import bcrypt
import pytest
import structlog

from probed.access import tls
from probed.access.web_file import WebFile
from probed.config import web_config
from probed.errors import ConfigError, Problem
from probed.testing import FakeClock
from tests.unit.certificates import Authority

HASH = "$2y$04$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
SAMPLE = f"""
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: VerifyClientCertIfGiven
  client_ca_file: ca.pem
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000
    X-XSS-Protection: ""
basic_auth_users:
  alice: {HASH}
"""


def written(directory: Path, text: str) -> Path:
    file = directory / "web-config.yml"
    file.write_text(text)
    return file


def told(directory: Path, text: str) -> list[str]:
    """The problems of a file, without its name."""
    file = written(directory, text)
    try:
        web_config.read(file)
    except ConfigError as error:
        return [str(problem).removeprefix(f"{file}:") for problem in error.problems]
    return []


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("server")
    return made


def test_a_whole_file_is_read_and_its_paths_are_relative_to_it(tmp_path: Path, authority: Authority) -> None:
    config = web_config.read(written(tmp_path, SAMPLE))
    assert config.files == (tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    assert config.http_server_config.headers.given() == {
        "X-Frame-Options": "deny",
        "Strict-Transport-Security": "max-age=31536000",
    }
    assert config.basic_auth_users == {"alice": HASH}
    assert config.knows_certificates and config.knows_people
    context = tls.context_of(config, "file")
    assert context is not None and context.verify_mode is ssl.CERT_OPTIONAL
    tls12 = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")]
    assert tls12 == ["ECDHE-RSA-AES256-GCM-SHA384"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt install prometheus)")
def test_prometheus_takes_the_same_file(tmp_path: Path, authority: Authority) -> None:
    file = written(tmp_path, SAMPLE)
    subprocess.run(["promtool", "check", "web-config", file], check=True, capture_output=True)


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    config = web_config.read(written(tmp_path, "# nothing yet\n"))
    assert not config.knows_people and tls.context_of(config, "file") is None


@pytest.mark.parametrize(
    "text, problem",
    [
        (
            "basic_auth_user: {}",
            '1:1: basic_auth_user: unknown key "basic_auth_user"; did you mean "basic_auth_users"?',
        ),
        ("- a", "1:1: expected a map of settings"),
        (
            "basic_auth_users:\n  alice: hunter2\n",
            "2:10: basic_auth_users.alice: expected a bcrypt hash such as $2y$10$…; make one with: htpasswd -nBC 10 NAME",
        ),
        (
            "basic_auth_users:\n  alice: 12345\n",
            "2:10: basic_auth_users.alice: expected a bcrypt hash such as $2y$10$…; make one with: htpasswd -nBC 10 NAME",
        ),
        (
            f"basic_auth_users:\n  alice: {HASH.replace('$04$', '$18$')}\n",
            "2:10: basic_auth_users.alice: expected a cost from 4 to 14, got 18: every login would take too long",
        ),
        (
            f"basic_auth_users:\n  'a:b': {HASH}\n",
            '2:10: basic_auth_users.a:b: expected a name of 1 to 200 printable characters without ":"',
        ),
        (
            "tls_server_config: {cert_file: f}",
            '1:20: tls_server_config: required key "key_file" is missing; without TLS, leave out tls_server_config',
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, min_version: TLS10}",
            '1:61: tls_server_config.min_version: expected TLS12 or TLS13, got "TLS10": older ones can be broken into',
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, min_version: TLS13, max_version: TLS12}",
            "1:81: tls_server_config.max_version: expected at least min_version (TLS13)",
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, client_auth_type: RequireAnyClientCert}",
            (
                "1:66: tls_server_config.client_auth_type: RequireAnyClientCert does not verify the certificate, which then "
                "says nothing; expected one of NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"
            ),
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, client_auth_type: RequireAndVerifyClientCerts}",
            (
                "1:66: tls_server_config.client_auth_type: expected one of NoClientCert, VerifyClientCertIfGiven, "
                'RequireAndVerifyClientCert, got "RequireAndVerifyClientCerts"; did you mean "RequireAndVerifyClientCert"?'
            ),
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, client_auth_type: RequireAndVerifyClientCert}",
            "1:66: tls_server_config.client_auth_type: RequireAndVerifyClientCert needs client_ca_file to verify by",
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, client_ca_file: f}",
            "1:64: tls_server_config.client_ca_file: means nothing without client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, client_allowed_sans: [a]}",
            "1:69: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA38]}",
            (
                '1:64: tls_server_config.cipher_suites[0]: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA38" is not among the safe '
                'suites; did you mean "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"?'
            ),
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, cipher_suites: [TLS_AES_128_GCM_SHA256]}",
            (
                "1:63: tls_server_config.cipher_suites: leaves nothing for TLS 1.2; add a suite for it, or set "
                "min_version: TLS13"
            ),
        ),
        (
            "tls_server_config: {cert_file: f, key_file: f, curve_preferences: [X25519]}",
            "1:67: tls_server_config.curve_preferences: cannot be chosen here; leave it out: X25519, P-256 … are offered",
        ),
        (
            "tls_server_config: {cert_file: f, key: secret}",
            "1:40: tls_server_config.key: is not read from here; write it into a file and name that: key_file",
        ),
        (
            "tls_server_config: {cert_file: f, key_file: nowhere}",
            '1:45: tls_server_config.key_file: cannot read "HERE/nowhere": there is no such regular file',
        ),
        (
            "rate_limit: {burst: 5, interval: 1s}",
            "1:13: rate_limit: is not built; leave it out: connections and failed logins are limited without it",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: never}}",
            '1:49: http_server_config.headers.X-Frame-Options: expected deny or sameorigin, got "never"',
        ),
        (
            "http_server_config: {headers: {X-Powered-By: x}}",
            (
                '1:32: http_server_config.headers.X-Powered-By: unknown key "X-Powered-By"; known here: '
                "Content-Security-Policy, Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, "
                "X-XSS-Protection"
            ),
        ),
        (
            'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie: b"}}',
            "1:57: http_server_config.headers.Content-Security-Policy: expected one line of printable ASCII",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_instead(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "f").write_text("x")
    assert told(tmp_path, text) == [problem.replace("HERE", str(tmp_path))]


def test_what_was_written_for_a_hash_is_never_repeated(tmp_path: Path) -> None:
    for secret in ("hunter2-canary", "[canary]", "{canary: 1}", "canary$2y$10$"):
        assert "canary" not in "".join(told(tmp_path, f"basic_auth_users: {{alice: {secret!r}}}"))
        assert "canary" not in "".join(told(tmp_path, f"basic_auth_users: {{alice: {secret}}}"))


def test_keys_that_do_not_fit_are_told_in_words(tmp_path: Path, authority: Authority) -> None:
    authority.issue("other")
    encrypted = ["openssl", "ec", "-in", "server.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"]
    subprocess.run(encrypted, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "junk").write_text("junk")

    def why(cert: str, key: str, more: str = "") -> str:
        file = written(tmp_path, f"tls_server_config: {{cert_file: {cert}, key_file: {key}{more}}}")
        with pytest.raises(ConfigError) as caught:
            tls.context_of(web_config.read(file), "web-config.yml")
        return str(caught.value).replace(str(tmp_path), "HERE")

    assert why("server.pem", "other.key") == (
        'web-config.yml: tls_server_config.key_file: "HERE/other.key" is not the key of the certificate in "HERE/server.pem"'
    )
    assert '"HERE/locked.key" is encrypted, and nobody is there to type its passphrase' in why(
        "server.pem", "locked.key"
    )
    assert "expected a certificate and its key as PEM" in why("junk", "server.key")
    more = ", client_ca_file: junk, client_auth_type: RequireAndVerifyClientCert"
    assert '"HERE/junk" is no certificate of an authority in PEM form' in why("server.pem", "server.key", more)


# --- read again ---------------------------------------------------------------------------------------------------


def anything(_: web_config.WebConfig) -> list[Problem]:
    return []


def replace_file(file: Path, text: str) -> None:
    """As people and tools do it: a new file takes the old one's name."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def test_a_changed_file_is_taken_up_within_a_second_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file, clock = written(tmp_path, f"basic_auth_users: {{alice: {HASH}}}"), FakeClock()
    watched = WebFile(file, anything, clock)
    replace_file(file, f"basic_auth_users: {{bob: {HASH}}}")
    assert list(watched.config.basic_auth_users) == ["alice"]  # not looked at again so soon
    clock.step(1)
    assert list(watched.config.basic_auth_users) == ["bob"]
    replace_file(file, "basic_auth_users: {bob: oops}")
    clock.step(1)
    assert list(watched.config.basic_auth_users) == ["bob"] and not watched.last_ok
    clock.step(60)
    assert list(watched.config.basic_auth_users) == ["bob"]
    assert watched.reloads == {"ok": 1, "failed": 1}  # told once, not at each look
    file.unlink()
    clock.step(1)
    assert list(watched.config.basic_auth_users) == ["bob"] and watched.reloads["failed"] == 2
    replace_file(file, f"basic_auth_users: {{carol: {HASH}}}")
    clock.step(1)
    assert list(watched.config.basic_auth_users) == ["carol"] and watched.last_ok


def test_a_certificate_that_is_renewed_in_two_steps_is_taken_up_when_both_are_there(
    tmp_path: Path, authority: Authority
) -> None:
    file, clock = written(tmp_path, "tls_server_config: {cert_file: server.pem, key_file: server.key}"), FakeClock()
    watched = WebFile(file, anything, clock)
    before = watched.context
    fresh = authority.issue("renewed")
    shutil.copy(fresh.cert, tmp_path / "server.pem")
    clock.step(1)
    assert watched.context is before and watched.reloads == {"ok": 0, "failed": 1}
    shutil.copy(fresh.key, tmp_path / "server.key")
    clock.step(1)
    assert watched.context is not before and watched.reloads == {"ok": 1, "failed": 1}


def test_a_key_that_everybody_can_read_is_told(tmp_path: Path, authority: Authority) -> None:
    file = written(tmp_path, "tls_server_config: {cert_file: server.pem, key_file: server.key}")
    for mode, told in ((0o600, 0), (0o640, 0), (0o644, 1)):
        (tmp_path / "server.key").chmod(mode)
        with structlog.testing.capture_logs() as logged:
            WebFile(file, anything, FakeClock())
        assert [line["event"] for line in logged] == ["web_config.key_readable_by_all"] * told


def test_tls_is_not_switched_off_by_a_file(tmp_path: Path, authority: Authority) -> None:
    file, clock = written(tmp_path, "tls_server_config: {cert_file: server.pem, key_file: server.key}"), FakeClock()
    watched = WebFile(file, anything, clock)
    replace_file(file, "")
    clock.step(1)
    assert watched.context is not None and not watched.last_ok


def test_what_the_other_settings_forbid_is_a_bad_file(tmp_path: Path) -> None:
    def needs_users(config: web_config.WebConfig) -> list[Problem]:
        return [] if config.basic_auth_users else [Problem("web.listen", "nobody is known")]

    file, clock = written(tmp_path, f"basic_auth_users: {{alice: {HASH}}}"), FakeClock()
    watched = WebFile(file, needs_users, clock)
    replace_file(file, "")
    clock.step(1)
    assert list(watched.config.basic_auth_users) == ["alice"] and not watched.last_ok


def test_the_hash_of_the_sample_is_one_that_bcrypt_reads() -> None:
    assert bcrypt.checkpw(b"x", HASH.encode()) is False
