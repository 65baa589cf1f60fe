"""What is shipped around the code keeps its promises: image, unit, wheel, locks, and no traces of anyone's machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# In pieces, because this file is held to its own rule.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
        ("ubuntu", "com"),
        ("crates", "io"),
        ("golang", "org"),
    )
]
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:work|root)/")


def tool(name: str) -> str:
    """A linter from this environment, or from the machine; without it the test is skipped, and says so."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: what it would have found was not looked for")
    return found


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def committed_texts() -> dict[str, str]:
    """Every file that is, or could be, committed; those that are not text are left out."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: what would be committed is not known")
    listed = run("git", "-c", f"safe.directory={ROOT}", "ls-files", "-co", "--exclude-standard", "-z")
    assert listed.returncode == 0, listed.stderr
    texts = {}
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            try:
                texts[name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    assert "pyproject.toml" in texts
    return texts


def places(texts: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def pinned(lock: Path) -> dict[str, str]:
    """Name -> version of a lock."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


# --- what is committed


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = re.compile(r"(?:^|[\s/.@\"'=<(])(?:" + "|".join(map(re.escape, REGISTRIES)) + r")\b", re.IGNORECASE)
    assert places(committed_texts(), hosts) == []


def test_no_file_carries_a_path_of_someones_machine() -> None:
    assert places(committed_texts(), MACHINE_PATHS) == []


def test_no_lock_that_names_registries_is_committed() -> None:
    names = {Path(name).name for name in committed_texts()}
    assert names.isdisjoint({"uv.lock", "pylock.toml", "poetry.lock", "package-lock.json", "yarn.lock"})


def test_every_change_fragment_is_named_by_its_kind_and_says_something() -> None:
    fragments = [path for path in (ROOT / "changes").iterdir() if path.is_file()]
    for path in fragments:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*\.(added|changed|fixed)\.md", path.name), path.name
        assert path.read_text().strip(), path.name


def test_the_shell_scripts_are_shellcheck_clean() -> None:
    scripts = [str(path) for path in sorted((ROOT / "scripts").glob("*.sh"))]
    result = run(tool("shellcheck"), *scripts, ".ci/run")
    assert result.returncode == 0, result.stdout


# --- locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_address_and_hashes_every_file(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), flags=re.MULTILINE), "an option of pip"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert entries
    without = [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry]
    assert without == []


def test_the_locks_pin_every_declared_dependency_within_its_bounds() -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    runtime: list[str] = project["dependencies"]
    dev = [line for line in groups["dev"] if isinstance(line, str)]
    wanted = {
        "build.lock": groups["build"],
        "runtime.lock": runtime,
        "dev.lock": [*runtime, *project["optional-dependencies"]["demo"], *groups["build"], *dev],
    }
    assert set(wanted) == {lock.name for lock in LOCKS}
    wrong = []
    for name, lines in wanted.items():
        versions = pinned(ROOT / "requirements" / name)
        for requirement in map(Requirement, lines):
            version = versions.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{name}: {requirement} is pinned at {version}: run `make lock`")
    assert wrong == []


def test_development_and_the_image_use_the_same_versions_at_run_time() -> None:
    dev = pinned(ROOT / "requirements" / "dev.lock")
    runtime = pinned(ROOT / "requirements" / "runtime.lock")
    assert {name: dev.get(name) for name in runtime} == runtime


# --- the wheel


def test_the_wheel_holds_the_policies_the_types_and_the_schemas(tmp_path: Path) -> None:
    result = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("pg_probed-")
    held = set(zipfile.ZipFile(wheel).namelist())

    shipped = ROOT / "policies"
    policies = {f"probed/_policies/{path.relative_to(shipped).as_posix()}" for path in shipped.rglob("*.yaml")}
    assert "probed/_policies/beyond/split_brain.yaml" in policies
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "probed").rglob("*")
        if path.is_file() and path.suffix in {".py", ".sql", ".toml", ".typed", ".html", ".css", ".js", ".svg"}
    }
    assert policies | package <= held
    assert not {name for name in held if name.startswith(("tests/", "scripts/", "policies/"))}
    assert any(name.endswith("licenses/LICENSE") for name in held)


# --- the image


def dockerfile_instructions() -> list[str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_dockerfile_is_hadolint_clean() -> None:
    result = run(tool("hadolint"), "Dockerfile")
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    users = [line.split()[1] for line in dockerfile_instructions() if line.startswith("USER ")]
    assert users == ["65532:65532"]


def test_the_image_starts_the_daemon_on_loopback_and_checks_its_health_without_a_shell() -> None:
    instructions = dockerfile_instructions()
    (entry,) = [line for line in instructions if line.startswith("ENTRYPOINT ")]
    (command,) = [line for line in instructions if line.startswith("CMD ")]
    (health,) = [line for line in instructions if line.startswith("HEALTHCHECK ")]
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["probed"]
    assert json.loads(health.split(" CMD ")[1]) == ["probed", "healthcheck"]
    arguments = json.loads(command.removeprefix("CMD "))
    assert arguments[0] == "run"
    assert arguments[-1].startswith("127.0.0.1:")


def test_everything_the_image_installs_from_elsewhere_is_checked_by_hash() -> None:
    installs = [part for line in dockerfile_instructions() for part in line.split("&&") if " install " in part]
    pip = [part for part in installs if "pip" in part]
    assert pip
    assert [part for part in pip if "--require-hashes" not in part and "--no-index" not in part] == []


def test_the_image_is_labelled_with_the_version_of_the_project() -> None:
    assert f"ARG VERSION={PROJECT['project']['version']}" in dockerfile_instructions()


def test_the_build_context_holds_what_the_dockerfile_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for line in dockerfile_instructions()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    }
    assert "*" in lines
    assert copied == allowed


# --- the unit

UNIT = ROOT / "systemd" / "probed.service"
HOST = ROOT / "systemd" / "probed-host.conf"


def installed(place: Path, *drop_ins: Path) -> Path:
    """The unit as it would stand in /etc/systemd/system, but for its program, which has to exist."""
    command = re.compile(r"^ExecStart=/usr/bin/probed ", flags=re.MULTILINE)
    text, replaced = command.subn("ExecStart=/bin/true ", UNIT.read_text())
    assert replaced == 1
    unit = place / UNIT.name
    unit.write_text(text)
    for drop_in in drop_ins:
        (place / f"{UNIT.name}.d").mkdir(exist_ok=True)
        shutil.copy(drop_in, place / f"{UNIT.name}.d")
    return unit


@pytest.mark.parametrize("drop_ins", [(), (HOST,)], ids=["alone", "with probed-host.conf"])
def test_the_unit_is_silent_under_systemd_analyze_verify(drop_ins: tuple[Path, ...], tmp_path: Path) -> None:
    result = run(tool("systemd-analyze"), "verify", "--man=no", str(installed(tmp_path, *drop_ins)))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "drop_ins, most", [((), 15), ((HOST,), 20)], ids=["one and a half", "with probed-host.conf two"]
)
def test_the_unit_is_exposed_by_no_more_than_so_much_of_ten(
    drop_ins: tuple[Path, ...], most: int, tmp_path: Path
) -> None:
    unit = str(installed(tmp_path, *drop_ins))
    result = run(tool("systemd-analyze"), "security", "--offline=true", f"--threshold={most}", "--no-pager", unit)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Overall exposure level" in result.stdout
    assert ("Service has access to kernel logging" in result.stdout) == bool(drop_ins), "the drop-in was not read"


def test_the_unit_lets_the_sources_of_out_of_memory_kills_be_read() -> None:
    alone, host = set(UNIT.read_text().splitlines()), set(HOST.read_text().splitlines())
    assert "ProtectControlGroups=yes" in alone, "read-only, but there"
    assert {"PrivateDevices=no", "DeviceAllow=/dev/kmsg r", "ProtectKernelLogs=no", "ProcSubset=all"} <= host


def test_the_unit_is_not_restarted_on_a_configuration_that_cannot_be_used() -> None:
    settings = set(UNIT.read_text().splitlines())
    assert {
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=30",
        "Restart=on-failure",
        "RestartPreventExitStatus=78",
    } <= settings
