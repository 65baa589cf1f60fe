"""TLS and credentials of components: they reach the component that they are for, and nobody else."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from probed.model import Outcome, Sample
from probed.probes._http import HttpClient
from tests.hostile import HTTP, OK, Line, answering, listening
from tests.unit.certificates import Authority, over_tls
from tests.unit.components import declared, sampled

HEALTHY = b'{"date":"2026-11-22T07:34:04.307Z"}'


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def wanting_certificates(context: ssl.SSLContext) -> Iterator[str]:
    """The same by blocking sockets: unlike asyncio's servers they send the alert of a failed handshake, as nginx does."""
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        # Closing a socket does not wake who waits in accept; shutting it down does.
        with contextlib.suppress(OSError):
            while True:
                raw, _ = door.accept()
                rest = raw.dup()
                rest.settimeout(5)
                with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as line:
                    line.recv(65536)
                    line.sendall(OK + b"Connection: close\r\n\r\n" + HEALTHY)
                # A close with bytes unread is a reset, which overtakes the alert.
                with contextlib.suppress(OSError), rest:
                    rest.shutdown(socket.SHUT_WR)
                    while rest.recv(65536):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()


def verdict(sample: Sample) -> tuple[str, str]:
    return sample.outcome.value, sample.kind


# --- TLS


async def test_a_component_of_an_authority_of_ones_own_is_reached_by_ca_file(
    http: HttpClient, authority: Authority
) -> None:
    async with over_tls(authority.issue("server").server(), HEALTHY) as url:
        sample = await sampled(http, declared("meta", url, ca_file=str(authority.file)))
        assert sample.outcome is Outcome.OBSERVED, sample.reason


async def test_a_certificate_that_does_not_verify_is_blind_and_says_why(
    http: HttpClient, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    cases = {
        "expired": authority.issue("expired", expired=True),
        "not valid for '127.0.0.1'": authority.issue("elsewhere", san="DNS:elsewhere.example"),
        "unable to get local issuer": stranger.issue("strange"),
    }
    for told, issued in cases.items():
        async with over_tls(issued.server(), HEALTHY) as url:
            sample = await sampled(http, declared("meta", url, ca_file=str(authority.file)))
            assert verdict(sample) == ("blind", "tls")
            assert told in sample.reason
    async with over_tls(authority.issue("unknown").server(), HEALTHY) as url:
        assert verdict(await sampled(http, declared("meta", url))) == ("blind", "tls")


async def test_a_port_that_does_not_speak_tls_fails(http: HttpClient, authority: Authority) -> None:
    for name in ("garbage", "http_0_9", "close_after_accept"):
        async with listening(HTTP[name]) as peer:
            url = peer.url.replace("http:", "https:")
            sample = await sampled(http, declared("meta", url, ca_file=str(authority.file)), 0.3)
            assert sample.outcome is Outcome.FAILED, name
    async with listening(HTTP["accept_and_hang"]) as peer:
        url = peer.url.replace("http:", "https:")
        assert verdict(await sampled(http, declared("meta", url), 0.3)) == ("failed", "timeout")


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_opens_the_door_and_a_missing_or_foreign_one_is_blind(
    http: HttpClient, authority: Authority, tmp_path: Path, maximum: ssl.TLSVersion
) -> None:
    server = authority.issue("server").server(clients_of=authority.file, maximum=maximum)
    client, stranger = authority.issue("client"), Authority(tmp_path).issue("client")
    with wanting_certificates(server) as url:
        sample = await sampled(
            http,
            declared("meta", url, ca_file=str(authority.file), cert_file=str(client.cert), key_file=str(client.key)),
        )
        assert sample.outcome is Outcome.OBSERVED, sample.reason
        sample = await sampled(http, declared("meta", url, ca_file=str(authority.file)))
        assert verdict(sample) == ("blind", "tls" if maximum is ssl.TLSVersion.TLSv1_2 else "auth"), sample.reason
        assert "cert_file" in sample.reason
        foreign = {"cert_file": str(stranger.cert), "key_file": str(stranger.key)}
        sample = await sampled(http, declared("meta", url, ca_file=str(authority.file), **foreign))
        assert verdict(sample) == ("blind", "auth"), sample.reason


async def test_a_renewed_certificate_counts_without_a_reload(
    http: HttpClient, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    (tmp_path / "other").mkdir()
    trusted.write_bytes(Authority(tmp_path / "other").file.read_bytes())
    async with over_tls(authority.issue("server").server(), HEALTHY) as url:
        cycle = declared("meta", url, ca_file=str(trusted))
        assert verdict(await sampled(http, cycle)) == ("blind", "tls")
        trusted.unlink()
        assert verdict(await sampled(http, cycle)) == ("blind", "config")
        trusted.write_bytes(authority.file.read_bytes())
        assert (await sampled(http, cycle)).outcome is Outcome.OBSERVED


async def test_files_that_openssl_cannot_use_are_blind(http: HttpClient, authority: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    client, other = authority.issue("client"), authority.issue("other")
    for keys in (
        {"ca_file": str(junk)},
        {"cert_file": str(junk)},
        {"cert_file": str(client.cert)},
        {"cert_file": str(client.cert), "key_file": str(other.key)},
    ):
        sample = await sampled(http, declared("meta", "https://127.0.0.1:1", **keys))
        assert verdict(sample) == ("blind", "config"), keys
        assert "for TLS" in sample.reason


# --- credentials


def secret(directory: Path, text: str = "s3cret\n") -> str:
    path = directory / "secret"
    path.write_text(text)
    return str(path)


async def test_a_bearer_token_is_sent_and_a_renewed_one_counts_at_once(http: HttpClient, tmp_path: Path) -> None:
    async with listening(answering(HEALTHY)) as peer:
        cycle = declared("meta", peer.url, bearer_token_file=secret(tmp_path))
        await sampled(http, cycle)
        secret(tmp_path, "renewed")
        await sampled(http, cycle)
        sent = [request.partition(b"Authorization: ")[2].partition(b"\r\n")[0] for request in peer.requests]
        assert sent == [b"Bearer s3cret", b"Bearer renewed"]


async def test_user_and_password_are_sent(http: HttpClient, tmp_path: Path) -> None:
    async with listening(answering(HEALTHY)) as peer:
        basic = {"username": "probed", "password_file": secret(tmp_path, "pä:ss\r\n")}
        await sampled(http, declared("meta", peer.url, basic_auth=basic))
        expected = base64.b64encode("probed:pä:ss".encode())
        assert b"Authorization: Basic " + expected + b"\r\n" in peer.requests[0]


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
async def test_a_refused_credential_is_blind(http: HttpClient, tmp_path: Path, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nServer: postgrest/14.5\r\n"
    token = secret(tmp_path)
    async with listening(answering(b"", head)) as peer:
        for component in ("auth", "rest", "realtime", "storage", "studio", "meta", "functions", "mine"):
            sample = await sampled(http, declared(component, peer.url, bearer_token_file=token))
            assert verdict(sample) == ("blind", "auth"), component
            assert "bearer_token_file" in sample.reason
        assert verdict(await sampled(http, declared("auth", peer.url))) == ("failed", "status")
        # Who expects a refusal gets an observation.
        sample = await sampled(http, declared("mine", peer.url, bearer_token_file=token, expect_status=[401, 403]))
        assert sample.outcome is Outcome.OBSERVED


async def test_a_token_goes_to_no_other_address(http: HttpClient, tmp_path: Path) -> None:
    token = secret(tmp_path)
    async with (
        listening(answering(HEALTHY)) as other,
        listening(HTTP["redirect_elsewhere"], elsewhere=other.url) as peer,
        listening(answering(b"")) as admin,
    ):
        for component in ("auth", "rest", "realtime", "storage", "studio", "meta", "mine"):
            await sampled(http, declared(component, peer.url, bearer_token_file=token))
        assert other.accepted == 0
        assert all(b"s3cret" in request for request in peer.requests)
        sample = await sampled(http, declared("rest", peer.url, admin_url=admin.url, bearer_token_file=token))
        assert sample.outcome is Outcome.OBSERVED
        assert all(b"uthorization" not in request for request in admin.requests)


async def test_a_token_is_in_no_sample(http: HttpClient, tmp_path: Path) -> None:
    async def echo(line: Line) -> None:
        head = await line.request()
        await line.say(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % len(head) + head)

    token = secret(tmp_path)
    async with listening(echo) as peer:
        for component in ("auth", "rest", "realtime", "storage", "studio", "meta", "mine"):
            sample = await sampled(http, declared(component, peer.url, bearer_token_file=token))
            assert sample.outcome is Outcome.FAILED
            assert "s3cret" not in repr(sample)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "nul\0", "x" * 5 + "\r\nX-Injected: 1", "\ud83d"])
async def test_a_file_without_one_line_of_secret_is_blind(http: HttpClient, tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text.encode(errors="surrogatepass"))
    async with listening(answering(HEALTHY)) as peer:
        sample = await sampled(http, declared("meta", peer.url, bearer_token_file=str(path)))
        assert verdict(sample) == ("blind", "config")
        assert str(path) in sample.reason
        assert peer.requests == []


async def test_a_secret_that_vanished_is_blind(http: HttpClient, tmp_path: Path) -> None:
    async with listening(answering(HEALTHY, OK)) as peer:
        gone = str(tmp_path / "gone")
        for keys in ({"bearer_token_file": gone}, {"basic_auth": {"username": "u", "password_file": gone}}):
            assert verdict(await sampled(http, declared("meta", peer.url, **keys))) == ("blind", "config")
        assert peer.accepted == 0
