"""The daemon's configuration for a lab: what an operator would write for that stack, and the demo's own policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from probed.demo.lab import Lab
from probed.demo.strains import CAPACITY_BYTES


def instance(lab: Lab, name: str, password_file: Path, *, env: str, declared: bool = True) -> str:
    """One entry of ``instances``; only ``declared`` nodes have a disk and a kernel that the daemon looks at."""
    return "\n".join(_lines(lab, name, password_file, env, declared)) + "\n"


def _lines(lab: Lab, name: str, password_file: Path, env: str, declared: bool) -> Iterator[str]:
    yield f"  - name: {name}"
    yield f"    labels: {{env: {env}}}"
    yield f'    postgres: {{user: {lab.monitor_user}, password_file: "{password_file}"}}'
    yield f"    patroni: [{', '.join(node.patroni_url for node in lab.nodes.values())}]"
    if declared:
        yield "    nodes:"
        for number, node in enumerate(lab.nodes.values()):
            # Of the nodes' servers Patroni tells; they share one disk.
            disk = f', disk: {{path: "{node.data_dir}"}}' if number == 0 else ""
            oom = f', oom: {{cgroups: ["{lab.oom_directory(node.name)}"]}}'
            yield f"      - {{name: {node.name}, local: true{disk}{oom}}}"
    yield f"    etcd: [{', '.join(lab.etcd_urls)}]"
    if lab.haproxy_write_address is not None:
        yield f'    haproxy: {{stats: "{lab.haproxy_stats_url}", frontends: ["{lab.haproxy_write_address}"]}}'
    if lab.components:
        yield "    components:"
        yield from (f"      {component}: {{url: {url}}}" for component, url in lab.components.items())


POLICIES: Mapping[str, str] = {
    "deadlocks_frequent": "{id: deadlocks_frequent, enabled: true}\n",
    "cache_hit_ratio_low": "{id: cache_hit_ratio_low, enabled: true, interval: 10s, params: {warmup_sec: 10}}\n",
    "ping_latency_high": "{id: ping_latency_high, enabled: true, params: {latency_threshold: 400ms}}\n",
    "capacity_high": f"""\
# The size of the databases, not the use of the disk: the disk has other users.
id: capacity_high
enabled: true
probe: database_size
detect: {{when: "database_size_bytes >= size_threshold"}}
params: {{size_threshold: {CAPACITY_BYTES >> 20}MiB}}
interval: 10s
""",
}
"""Policy files by id: those that are off by default are on here, and quick enough to be watched."""
