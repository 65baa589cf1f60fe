"""The layers of docs/architecture.md are those of the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "probed"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}
"""Module name without ``probed.`` -> its file."""


def table() -> dict[str, set[str]]:
    """The fenced block of the page: module or package -> what it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.split("```layers\n")[1].split("```")[0]
    lines = [line.partition(":") for line in block.splitlines()]
    return {name.strip(): set(allowed.split()) for name, _, allowed in lines}


TABLE = table()


def line_of(module: str) -> str | None:
    """The longest name of the table that fits a module."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in TABLE), None)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("probed.") in FILES else str(node.module)


def ours(path: Path) -> set[str]:
    return {name.removeprefix("probed.") for name in imports(path) if name.startswith("probed.")}


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    line = line_of(module)
    assert line is not None, f"docs/architecture.md has no line for {module}"
    wrong = {name for name in ours(FILES[module]) if line_of(name) not in {line, *TABLE[line]}}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}; its line allows: {', '.join(sorted(TABLE[line]))}"


def test_every_line_of_the_table_is_a_module_or_package() -> None:
    known = set(FILES) | {module.rpartition(".")[0] for module in FILES}
    assert set(TABLE) <= known
    assert set().union(*TABLE.values()) <= set(TABLE)


def test_the_arrows_never_lead_back() -> None:
    list(TopologicalSorter(TABLE).static_order())


def test_the_model_imports_nothing_of_ours_and_what_its_values_are_made_of() -> None:
    assert {name.split(".")[0] for name in imports(FILES["model"])} <= {*sys.stdlib_module_names, "msgspec"}


def test_probes_and_evaluators_do_not_see_each_other() -> None:
    assert not _reachable("probes") & {"evaluators", "pipeline", "policy"}
    assert not _reachable("evaluators") & {"probes", "sampling"}


def test_a_private_module_of_the_probes_is_seen_only_where_targets_are_reached() -> None:
    """Who may open a connection to a target is a short list."""
    seen = {line_of(module) for module, path in FILES.items() if any(n.startswith("probes._") for n in ours(path))}
    assert seen <= {
        "probes",
        "reaching",
        "telling",
        "discovery",
        "membership",
        "evidence",
        "snapshots",
        "looking",
        "patrol",
        "post",
        "cli",
    }


def test_nothing_imports_the_daemon_but_its_life_and_the_demo() -> None:
    importers = {module for module, path in FILES.items() if "daemon" in ours(path)}
    assert importers <= {"life", "demo.show"}


def test_only_the_daemon_constructs_the_store() -> None:
    makers = {
        module
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("SqliteStore")
    }
    assert makers == {"daemon"}


def test_prometheus_client_is_only_what_tests_compare_with() -> None:
    assert not {m for m, path in FILES.items() if any(name.startswith("prometheus_client") for name in imports(path))}


def test_what_runs_in_the_loop_never_imports_tests_or_their_fakes() -> None:
    assert not [module for module, path in FILES.items() if "testing" in ours(path)]


def _reachable(start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in TABLE[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found
