"""A statement that is not ours, on a connection of ours: it can neither change nor hold up anything. No judging.

What bounds it is the server: READ ONLY, statement and lock timeout, ROLLBACK whatever comes, so that not even a SET
stays. What returns no row is not executed at all, which leaves out the statements that outlive a rollback (PREPARE
TRANSACTION) or end it (COMMIT). Session-level advisory locks do outlive it, and are released.
"""

from __future__ import annotations

import math
from decimal import Decimal
from time import perf_counter
from typing import Any

import asyncpg
from msgspec import Struct

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.model import SqlQuestion
from probed.probes._sql import Session
from probed.probes._sql_errors import quoted

SHARE = 0.25
"""Of the cycle's timeout: what a statement may take on the connection that the node's own probes wait for."""
OWN_SHARE = 0.9
"""The same on a connection of its own; the server ends it before the cycle's deadline would cost the connection."""
MAX_TEXT = 200
SET_UP = "SELECT pg_is_in_recovery(), set_config('statement_timeout', $1, true)"
RELEASE = "SELECT pg_advisory_unlock_all()"

Value = float | str | bool | None


class Answered(Struct, frozen=True):
    value: Value
    """``None`` for NULL, for no row, and for a server that was not asked because of its role."""
    said: str
    """The value for people, also when there is none."""
    in_recovery: bool
    seconds: float = 0.0


async def ask(session: Session, question: SqlQuestion, timeout: float, wanted: bool | None) -> Answered:
    """The statement's value; only on a server that is in recovery as ``wanted``, if that is given.

    ProbeError as of every method of a session; Blind when the server does not take the statement.
    """
    milliseconds = max(1, int(timeout * (OWN_SHARE if question.alone else SHARE) * 1000))
    async with session.guest() as connection:
        transaction = connection.transaction(readonly=True)
        await transaction.start()
        in_recovery = await connection.fetchval(SET_UP, str(milliseconds)) is True
        failure: asyncpg.PostgresError | Blind | None = None
        answered = Answered(None, "nothing", in_recovery)
        if wanted is None or wanted is in_recovery:
            try:
                answered = await _answer(connection, question.statement, in_recovery)
            except (asyncpg.PostgresError, Blind) as error:
                if _ends_the_session(error):
                    raise
                failure = error.with_traceback(None)  # which holds this frame, as the frame holds the error
        await transaction.rollback()
        await connection.execute(RELEASE)
    if isinstance(failure, Blind):
        raise failure
    if failure is not None:
        raise _told(failure, session, milliseconds, question.alone)
    return answered


async def _answer(connection: asyncpg.Connection[asyncpg.Record], statement: str, in_recovery: bool) -> Answered:
    started = perf_counter()
    prepared = await connection.prepare(statement)
    if prepared.get_parameters():
        raise Blind("config", "the statement has parameters ($1), and nobody gives them; write their values")
    if not prepared.get_attributes():
        raise Blind("config", "the statement returns no rows, so it was not run; write one that returns a value")
    with steps.step("statement"):
        cursor = await prepared.cursor()
        rows = await cursor.fetch(2)
    seconds = perf_counter() - started
    if len(rows) > 1:
        raise Blind("config", "the statement returns several rows; write one that returns one value")
    if not rows:
        return Answered(None, "no row", in_recovery, seconds)
    value = _value(rows[0][0])
    return Answered(value, said(value), in_recovery, seconds)


def _value(raw: Any) -> Value:
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float | Decimal):
        try:
            number = float(raw)
        except OverflowError:
            return str(raw)[:MAX_TEXT]
        return number if math.isfinite(number) else str(raw)[:MAX_TEXT]
    return "".join(char for char in str(raw)[:MAX_TEXT] if char.isprintable())


def said(value: Value) -> str:
    """A value for people."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else f'"{value}"'


def _ends_the_session(error: Exception) -> bool:
    ends = asyncpg.OperatorInterventionError | asyncpg.PostgresConnectionError | asyncpg.PostgresSystemError
    return isinstance(error, ends) and not isinstance(error, asyncpg.QueryCanceledError)


def _told(error: asyncpg.PostgresError, session: Session, milliseconds: int, own: bool) -> ProbeError:
    """What the server said of the statement. Its failing is the target's fault only where the data or time is."""
    address, text = session.login.address, " ".join(str(error).split())[:300]
    match error:
        case asyncpg.QueryCanceledError():
            more = "" if own else "; a policy with a timeout of its own gets a connection of its own, and that time"
            return TargetFailed("timeout", f"{address}: {text}: it may take {milliseconds} ms{more}")
        case asyncpg.LockNotAvailableError():
            return Blind("lock", f"{address}: a lock that somebody holds kept the statement waiting: {text}")
        case asyncpg.InsufficientPrivilegeError():
            role = quoted(session.login.role)
            return Blind("privilege", f"{address}: {text}; run: GRANT SELECT (or EXECUTE) on it TO {role};")
        case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError():
            return Blind("config", f"{address}: {text}; outside pg_catalog write the schema, too: public.jobs")
        case asyncpg.ReadOnlySQLTransactionError():
            return Blind("config", f"{address}: {text}; a probe only reads")
        case (
            asyncpg.SyntaxOrAccessError() | asyncpg.FeatureNotSupportedError() | asyncpg.InvalidTransactionStateError()
        ):
            return Blind("config", f"{address}: {text} (SQLSTATE {error.sqlstate})")
        case _:
            return TargetFailed("server", f"{address}: {text} (SQLSTATE {error.sqlstate})")
