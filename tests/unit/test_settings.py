"""probed.yml: what the contract shows is accepted, and each mistake is told with its place, all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probed import quantity
from probed.config import load
from probed.config.notifications import misdirected
from probed.config.settings import Defaults, Instance, Postgres, Settings
from probed.config.values import is_loopback, split_address
from probed.errors import ConfigError
from probed.model import Severity

SHORT = "instances: [{name: orders, patroni: ['http://10.0.0.1:8008']}]\n"

LONG = """
web:
  listen: ["127.0.0.1:7432", "[::1]:7432"]
  socket: /run/probed/probed.sock
storage:
  path: /var/lib/probed
  fleet: postgresql://probed@store/probed
  retention: 90d
policies:
  directory: /etc/probed/policies.d
defaults: {interval: 5s, timeout: 2s, switchover_grace: 60s}
observer: node-a
instances:
  - name: orders
    labels: {env: prod, region: eu-1}
    postgres: {user: probed, password_file: PASSWORD, database: postgres, sslmode: prefer}
    nodes:
      - name: node-a
        local: true
        postgres: {host: 10.0.0.1, port: 5432}
        patroni: http://10.0.0.1:8008
        disk: {path: /var/lib/postgresql}
        oom: {}
      - name: node-b
        postgres: {host: 10.0.0.2}
        patroni: http://10.0.0.2:8008
    etcd: [http://10.0.0.1:2379, http://10.0.0.2:2379, http://10.0.0.3:2379]
    haproxy: {stats: "http://10.0.0.1:7000/;csv", frontends: ["10.0.0.1:5000"]}
    components:
      kong:     {url: http://10.0.0.1:8000}
      rest:     {url: http://10.0.0.1:3000, admin_url: http://10.0.0.1:3001}
      functions: {url: http://10.0.0.1:9000/, expect_status: [200, 400, 401]}
notifications:
  alertmanager: [http://am-1:9093, http://am-2:9093]
  webhooks: [{url: https://hooks.example/x, secret_file: HOOK}]
  apprise: [{url_file: PUSH, min_severity: critical}]
  heartbeat: {url: https://watch.example/ping/x, interval: 15s}
inspections:
  - {name: nightly, schedule: "daily 03:00", instances: [orders]}
"""


def long(tmp_path: Path) -> str:
    """``LONG`` with the secret files that it names."""
    text = LONG
    for word in ("PASSWORD", "HOOK", "PUSH"):
        file = tmp_path / word.lower()
        file.write_text("x")
        text = text.replace(word, str(file))
    return text


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "probed.yml"
    file.write_text(text)
    return load.load_file(file, environ={})


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


# --- what is told


def test_a_key_written_twice_and_a_variable_that_is_not_set_hide_no_other_mistake(tmp_path: Path) -> None:
    text = "observer: ${UNSET}\nobserver: b\ndefaults: {timeot: 2s, interval: $$}\ninstances: [{}]\n"
    assert problems(tmp_path, text) == [
        "probed.yml:1:11: observer: environment variable UNSET is not set; set it, or write ${UNSET:-default}",
        'probed.yml:2:1: observer: duplicate key "observer", first at line 1',
        'probed.yml:3:12: defaults.timeot: unknown key "timeot"; did you mean "timeout"?',
        'probed.yml:3:34: defaults.interval: expected a duration such as 500ms, 10s, 5m or 1h30m, got "$"',
        'probed.yml:4:13: instances[0].name: required key "name" is missing',
    ]


def test_a_file_that_is_wrong_only_in_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, SHORT + "observer: a\nobserver: b\n")[0].endswith(
        'observer: duplicate key "observer", first at line 2'
    )


# --- what is accepted


def test_the_shortest_useful_file_is_accepted_with_the_documented_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SHORT)
    assert settings.web.listen == ["127.0.0.1:7432"]
    assert settings.defaults == Defaults()
    assert (Defaults().interval, Defaults().timeout, Defaults().switchover_grace) == (5.0, 2.0, 60.0)
    assert settings.storage.path == Path("/var/lib/probed")
    assert settings.storage.retention == 90 * 86400
    assert settings.socket == Path("/var/lib/probed/probed.sock")
    assert settings.observer


def test_the_file_of_the_contract_is_accepted_whole(tmp_path: Path) -> None:
    settings = loaded(tmp_path, long(tmp_path))
    password = tmp_path / "password"
    (orders,) = settings.instances
    assert [node.name for node in orders.nodes] == ["node-a", "node-b"]
    assert orders.nodes[0].local
    assert orders.nodes[1].postgres is not None
    assert orders.nodes[1].postgres.over(orders.postgres) == Postgres(
        host="10.0.0.2", user="probed", password_file=password, database="postgres", sslmode="prefer"
    )
    assert orders.components["functions"].expect_status == [200, 400, 401]
    assert orders.components["functions"].url == "http://10.0.0.1:9000"
    assert settings.socket == Path("/run/probed/probed.sock")
    assert settings.notifications is not None
    assert [(name, one.min_severity) for _, name, one in settings.notifications.receivers()] == [
        ("am-1-9093", Severity.NORMAL), ("am-2-9093", Severity.NORMAL), ("hooks.example", Severity.NORMAL),
        ("push", Severity.CRITICAL),
    ]  # fmt: skip
    assert settings.notifications.heartbeat is not None
    assert settings.notifications.heartbeat.interval == 15.0


@pytest.mark.parametrize(
    "text, told",
    [
        ("alertmanager: ['am:9']", '2:32: notifications.alertmanager[0].url: expected an address such as http://10.0.0.1:8008, got "am:9"'),
        ("alertmanager: [{url: http://a, ur: x}]", '2:48: notifications.alertmanager[0].ur: unknown key "ur"; did you mean "url"?'),
        ("webhooks: [{url: 'htps://h/cAnArY'}]", "2:34: notifications.webhooks[0].url: expected an address such as https://hooks.example/x (what was found is not shown)"),
        ("webhooks: [{url: 'https://me:cAnArY@h/'}]", "2:34: notifications.webhooks[0].url: credentials do not belong into an address; use a *_file key"),
        ("webhooks: [{min_severity: fatal}]", "2:28: notifications.webhooks[0]: expected an address: either url or url_file"),
        ("webhooks: [{url: https://h/a}, {url: https://h/b}]", '2:48: notifications.webhooks[1]: two receivers are called "h"; give this one a name of its own'),
        ("webhooks: [{url: https://h/a, instances: [order]}]", '2:59: notifications.webhooks[0].instances[0]: no instance is called "order"; did you mean "orders"?'),
        ("webhooks: [{url: https://h/a, min_severity: grave}]", '2:61: notifications.webhooks[0].min_severity: expected one of fatal, critical, normal, got "grave"'),
        ("webhooks: [{url: http://h/a, cert_file: /etc/hostname}]", "2:57: notifications.webhooks[0].cert_file: means nothing without an https:// address"),
        ("apprise: [{}]", '2:27: notifications.apprise[0].url_file: required key "url_file" is missing'),
        ("heartbeat: {interval: 5s}", "2:28: notifications.heartbeat: expected an address: either url or url_file"),
        ("heartbeat: {url_file: /nowhere}", '2:39: notifications.heartbeat.url_file: cannot read "/nowhere": there is no such regular file'),
    ],
)  # fmt: skip
def test_mistakes_about_receivers_are_told_with_their_place_and_without_secrets(
    tmp_path: Path, text: str, told: str
) -> None:
    found = problems(tmp_path, SHORT + f"notifications: {{{text}}}\n")
    assert f"probed.yml:{told}" in found
    assert "cAnArY" not in str(found)


def test_events_that_nobody_knows_and_files_without_an_address_are_told(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("cAnArY")
    text = f"webhooks: [{{name: a, url_file: {file}, events: [no_leadr]}}], heartbeat: {{url_file: {file}}}"
    settings = loaded(tmp_path, SHORT + f"notifications: {{{text}}}\n")
    found = [str(problem) for problem in misdirected(settings.notifications, ["no_leader"])]
    assert (
        found[0]
        == 'probed.yml: notifications.webhooks[0].events[0]: no policy is called "no_leadr"; did you mean "no_leader"?'
    )
    assert [problem.split(": ")[1] for problem in found[1:]] == [
        "notifications.webhooks[0].url_file", "notifications.heartbeat.url_file",
    ]  # fmt: skip
    assert "cAnArY" not in str(found)
    assert misdirected(None, []) == []


def test_what_is_accepted_without_effect_is_told(tmp_path: Path) -> None:
    told = load.not_used_yet(loaded(tmp_path, long(tmp_path)))
    assert set(told) >= {"storage.fleet"}
    assert not {"notifications", "inspections"} & set(told)
    assert not [part for part in told if "etcd" in part or "haproxy" in part]
    assert not [part for part in told if "oom" in part or "disk" in part]
    far = "instances: [{name: orders, nodes: [{name: a, oom: {}, disk: {path: /data}}]}]\n"
    assert load.not_used_yet(loaded(tmp_path, far)) == [
        "orders/a: disk and oom (probed must run on that node, with local: true)"
    ]
    assert load.not_used_yet(loaded(tmp_path, SHORT)) == []


def test_what_a_node_leaves_open_it_inherits() -> None:
    base = Postgres(user="probed", port=6432, sslmode="require")
    assert Postgres(port=5433).over(base) == Postgres(user="probed", port=5433, sslmode="require")
    assert Postgres(port=5433).over(None) == Postgres(port=5433)


# --- what is refused, and where it is told


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "probed.yml: is empty; declare at least one instance"),
        ("[]", "probed.yml:1:1: expected a map of settings"),
        ("instances: []", "probed.yml:1:12: instances: expected at least 1 item"),
        ("observer: x", 'probed.yml:1:1: instances: required key "instances" is missing'),
        (SHORT + "intervall: 5s", 'probed.yml:2:1: intervall: unknown key "intervall"'),
        (SHORT + "defaults: {intervall: 5s}", 'probed.yml:2:12: defaults.intervall: unknown key "intervall"; did you mean "int'),
        (SHORT + "defaults: {interval: 5}", 'probed.yml:2:22: defaults.interval: expected a duration with its unit'),
        (SHORT + "defaults: {interval: 5 sec}", 'probed.yml:2:22: defaults.interval: expected a duration such as'),
        (SHORT + "defaults: {interval: 0s}", "probed.yml:2:22: defaults.interval: expected a duration above 0"),
        (SHORT + "defaults: {interval: " + "9" * 400 + "s}", "probed.yml:2:22: defaults.interval: expected a number"),
        (SHORT + "defaults: {interval: 1s}", "probed.yml:2:11: defaults.timeout: expected a duration below"),
        (SHORT + "defaults: {timeout: 5s}", "probed.yml:2:21: defaults.timeout: expected a duration below"),
        (SHORT + "web: {listen: [localhost]}", 'probed.yml:2:16: web.listen[0]: expected host:port, got "localhost"'),
        (SHORT + 'web: {listen: [":7432"]}', 'probed.yml:2:16: web.listen[0]: expected host:port, got ":7432"'),
        (SHORT + "web: {listen: ['::1:7432']}", "probed.yml:2:16: web.listen[0]: expected host:port"),
        (SHORT + "web: {listen: ['h:70000']}", "probed.yml:2:16: web.listen[0]: expected host:port"),
        (SHORT + "web: {listen: ['h:²']}", "probed.yml:2:16: web.listen[0]: expected host:port"),
        (SHORT + "web: {listen: ['127.0.0.1:1', '0.0.0.0:7432']}",
         "probed.yml:2:31: web.listen[1]: 0.0.0.0:7432 can be reached from other machines without authentication"),
        (SHORT + "web: {config_file: /w.yml}", 'probed.yml:2:20: web.config_file: cannot read "/w.yml": there is no such regular file'),
        (SHORT + "observer: a b", "probed.yml:2:11: observer: expected a name of letters"),
        ("instances: [{name: a/b, patroni: ['http://h:1']}]", "probed.yml:1:20: instances[0].name: expected a name"),
        ("instances: [{name: a}]", "probed.yml:1:13: instances[0]: nothing to probe: declare nodes, patroni"),
        ("instances: [{name: a, patroni: ['h:8008']}]", "probed.yml:1:33: instances[0].patroni[0]: expected an address"),
        ("instances: [{name: a, patroni: ['http://u:p@h']}]",
         "probed.yml:1:33: instances[0].patroni[0]: credentials do not belong into an address"),
        ("instances: [{name: a, patroni: ['http://h:99999']}]",
         "probed.yml:1:33: instances[0].patroni[0]: expected a port from 1 to 65535"),
        ("instances: [{name: a, patroni: ['http://[::1']}]", "probed.yml:1:33: instances[0].patroni[0]: "),
        ("instances: [{name: a, haproxy: {frontends: [5000]}}]",
         "probed.yml:1:45: instances[0].haproxy.frontends[0]: expected a string, got 5000"),
        ("instances: [{name: a, nodes: [{name: n, postgres: {port: 0}}]}]",
         "probed.yml:1:58: instances[0].nodes[0].postgres.port: expected greater than or equal to 1, got 0"),
        ("instances: [{name: a, nodes: [{name: n, postgres: {sslmode: on}}]}]",
         "probed.yml:1:61: instances[0].nodes[0].postgres.sslmode: expected one of disable, allow"),
        ("instances: [{name: a, nodes: [{name: n}, {name: n}]}]",
         'probed.yml:1:49: instances[0].nodes[1].name: the name "n" is used twice'),
        ("instances: [{name: a, components: {kong: {urll: x}}}]",
         'probed.yml:1:43: instances[0].components.kong.urll: unknown key "urll"; did you mean "url"?'),
        ("instances: [{name: a, components: {'k ong': {url: 'http://h'}}}]", "probed.yml:1:"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(tmp_path, text)), problems(tmp_path, text)


def test_two_instances_of_one_name_are_refused_at_the_second(tmp_path: Path) -> None:
    text = "instances:\n" + "".join(f"  - {{name: {name}, patroni: ['http://h:1']}}\n" for name in "aba")
    assert problems(tmp_path, text) == ['probed.yml:4:12: instances[2].name: the name "a" is used twice']


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
web: {config_file: x, listn: 1}
defaults: {interval: 5}
instances:
  - name: a b
    postgres: {password_file: /nowhere/pg, port: x}
    nodes: [{name: n, postgres: {sslrootcert: /nowhere/ca}}]
"""
    places = [problem.split(":")[1] for problem in problems(tmp_path, text)]
    assert places == ["1", "1", "2", "4", "5", "5", "6"]


def test_contradictions_between_parts_are_all_told_at_once(tmp_path: Path) -> None:
    text = SHORT + "defaults: {timeout: 9s}\nweb: {listen: ['0.0.0.0:1', '10.0.0.1:2']}\n"
    assert [problem.split(": ")[1] for problem in problems(tmp_path, text)] == [
        "defaults.timeout",
        "web.listen[0]",
        "web.listen[1]",
    ]


def test_a_missing_secret_file_is_told_with_its_place(tmp_path: Path) -> None:
    text = "instances:\n  - name: a\n    nodes:\n      - {name: n, postgres: {password_file: /nowhere/pg}}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(
        'probed.yml:4:45: instances[0].nodes[0].postgres.password_file: cannot read "/nowhere/pg"'
    )


def test_a_fifo_as_secret_file_is_refused_and_does_not_hold_up_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = f"instances: [{{name: a, postgres: {{password_file: {tmp_path}/pipe}}, patroni: ['http://h:1']}}]"
    assert "no such regular file" in problems(tmp_path, text)[0]


def test_a_secret_file_whose_name_no_system_could_have_is_refused(tmp_path: Path) -> None:
    text = 'instances: [{name: a, postgres: {password_file: "x\\0y"}, patroni: ["http://h:1"]}]'
    assert len(problems(tmp_path, text)) == 1


def test_a_reachable_address_is_accepted_when_somebody_says_so(tmp_path: Path) -> None:
    assert loaded(tmp_path, SHORT + "web: {listen: ['0.0.0.0:7432'], insecure: true}").web.insecure


# --- the short forms


def test_patroni_alone_is_an_instance_that_finds_itself() -> None:
    settings = load.from_patroni(["http://127.0.0.1:8008/"])
    assert settings.instances[0] == Instance(name=load.UNNAMED, patroni=["http://127.0.0.1:8008"])


def test_a_dsn_alone_is_a_standalone_server() -> None:
    (instance,) = load.from_postgres("postgresql://me@db.example:5433/app?sslmode=require").instances
    assert instance.nodes[0].name == "db.example"
    assert instance.nodes[0].postgres == Postgres(
        host="db.example", port=5433, user="me", database="app", sslmode="require"
    )


def test_a_dsn_may_name_a_socket_directory() -> None:
    (instance,) = load.from_postgres("postgresql:///postgres?host=/var/run/postgresql").instances
    assert instance.nodes[0].postgres is not None
    assert instance.nodes[0].postgres.host == "/var/run/postgresql"
    assert instance.nodes[0].name == "var-run-postgresql"


@pytest.mark.parametrize(
    "dsn, message",
    [
        ("mysql://h/x", 'expected an address such as postgresql://probed@127.0.0.1/postgres, got "mysql:…"'),
        ("host=h user=x", "expected an address such as"),
        ("postgresql://u:secret@h/x", "a password in an argument can be read by everyone"),
        ("postgresql://u@h/x?password=secret", "a password in an argument can be read by everyone"),
        ("postgresql://u@h/x?connect_timeout=5", '"connect_timeout" is not understood here'),
        ("postgresql://h:99999/x", "not an address: Port out of range"),
        ("postgresql://[::1/x", "not an address: "),
        ("postgresql://h/x?sslmode=never", "expected one of disable"),
    ],
)
def test_a_bad_dsn_is_told_without_its_password(dsn: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.from_postgres(dsn)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--postgres: ")
    assert "secret" not in str(caught.value)


def test_a_bad_patroni_address_is_told_by_its_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        load.from_patroni(["127.0.0.1:8008"])
    assert str(caught.value).startswith("--patroni: instances[0].patroni[0]: expected an address such as http://")


# --- addresses and quantities


@pytest.mark.parametrize(
    "text, parts", [("h:1", ("h", 1)), ("[::1]:5432", ("::1", 5432)), ("10.0.0.1:65535", ("10.0.0.1", 65535))]
)
def test_an_address_is_host_and_port(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["h", "h:", "h:0", "h:65536", "h:-1", "::1:5", ":5", "[]:5", "h:1x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        split_address(text)


def test_loopback_is_what_only_this_machine_can_reach() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "db.localhost.example")] == [False] * 4


@pytest.mark.parametrize(
    "text, value",
    [("500ms", 0.5), ("10s", 10), ("1h30m", 5400), ("1.5m", 90), ("2w", 1209600), ("10GiB", 10 * 2**30), ("1 MB", 10**6),
     ("512B", 512), ("42", 42), ("-1.5e3", -1500)],
)  # fmt: skip
def test_quantities_are_read_in_base_units(text: str, value: float) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "5S", "1h 30m", "GiB", "nan", "inf", "1e999", "9" * 400 + "GiB", "0x5"]
)
def test_what_is_no_quantity_is_refused_as_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        quantity.parse(text)


@pytest.mark.parametrize(
    "value, shown",
    [(0.1, "100 ms"), (5, "5 s"), (95, "1 min 35 s"), (3600, "1 h"), (90061, "1 d 1 h"), (59.9, "59.9 s"), (60, "1 min"),
     (59.99, "60 s"), (0, "0 ms")],
)  # fmt: skip
def test_seconds_are_shown_as_people_write_them(value: float, shown: str) -> None:
    assert quantity.human_seconds(value) == shown


@pytest.mark.parametrize(
    "value, shown", [(0, "0 B"), (1023, "1023 B"), (2**30 * 10, "10.0 GiB"), (2**50, "1024.0 TiB")]
)
def test_bytes_are_shown_as_people_read_them(value: float, shown: str) -> None:
    assert quantity.human_bytes(value) == shown


ONE = 'instances: [{name: a, patroni: ["http://127.0.0.1:8008"]}]\n'


@pytest.mark.parametrize("text, size", [("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("20GB", 20 * 10**9)])
def test_the_store_may_have_a_size(tmp_path: Path, text: str, size: int) -> None:
    assert (
        loaded(
            tmp_path, f'storage: {{max_size: {text}}}\ninstances: [{{name: a, patroni: ["http://127.0.0.1:8008"]}}]\n'
        ).storage.max_size
        == size
    )


@pytest.mark.parametrize(
    "text, expected",
    [("5", "a size with its unit such as 512MiB or 10GiB"), ("1 GiBs", "a size such as"), ("1MiB", "16MiB or more")],
)
def test_a_size_that_cannot_be_is_told(tmp_path: Path, text: str, expected: str) -> None:
    [problem] = problems(
        tmp_path, f'storage: {{max_size: {text}}}\ninstances: [{{name: a, patroni: ["http://127.0.0.1:8008"]}}]\n'
    )
    assert problem.startswith("probed.yml:1:") and "storage.max_size" in problem and expected in problem
