from collections.abc import Mapping

from probed.errors import NotApplicable, TargetFailed
from probed.model import Reading, SqlQuestion
from probed.probes import Context, Measured, probe
from probed.probes._guest import Answered, ask, said

WANTED: Mapping[str, bool] = {"primary": False, "replicas": True}
"""``on`` -> whether such a server is in recovery."""


@probe(
    kinds=("sql",),
    readings={
        "value": "the first column of the only row, when it is a number; 1 and 0 for true and false",
        "text": "the same when it is anything else, at most 200 characters (an identity)",
        "statement_seconds": "how long the statement took, seconds",
    },
)
async def sql(context: Context) -> Measured:
    """A question of your own to the databases: a policy with ``probe: sql`` says it under the key ``sql``.

    ``statement`` is one statement that returns a value: the first column of the only row is the reading ``value`` (or
    ``text``); with ``expect``, another value has failed. It runs on every server ``on: primary`` (wherever that is;
    a standby is not applicable), ``replicas``, ``every`` or on the node of that name, in ``database``.

    It runs in a READ ONLY transaction that is rolled back, with the privileges of probed's role and nothing but
    pg_catalog on its search path: write ``public.jobs``. What returns no rows (SET, DO, COPY, LOCK …) is not executed,
    several statements are refused, at most two rows are fetched, advisory locks are released.

    It shares the node's one connection and may take a quarter of that one's timeout, 0.5 s by default, so that nothing
    waits for it; a policy with a ``timeout`` of its own, or for another database, gets a connection of its own kind.
    Off unless probed.yml says ``policies: {allow_sql: true}``.

    Failed: no connection, too slow, not as expected. Blind, with the remedy: a statement that the server does not
    take, a missing privilege, a lock.
    """
    question = context.question
    assert isinstance(question, SqlQuestion)
    wanted = WANTED.get(question.on)
    try:
        found = await ask(context.sql, question, context.timeout, wanted)
    except TargetFailed as error:
        if wanted is not None and context.memory.get("in_recovery", wanted) is not wanted:
            raise NotApplicable(f"{_other(question.on)} when it was last seen; now: {error}") from None
        raise
    context.memory["in_recovery"] = found.in_recovery
    if wanted is not None and found.in_recovery is not wanted:
        raise NotApplicable(f"{_other(question.on)}; the statement is for {question.on}")
    return _measured(found, question, context.target.address)


def _other(on: str) -> str:
    return "this server was in recovery" if on == "primary" else "this server was the primary"


def _measured(found: Answered, question: SqlQuestion, address: str) -> Measured:
    if question.expect is not None and not _same(found.value, question.expect):
        raise TargetFailed("state", f"{address}: expected {said(question.expect)}, got {found.said}")
    readings: dict[str, Reading] = {"statement_seconds": found.seconds}
    if isinstance(found.value, float | bool):
        readings["value"] = float(found.value)
    elif isinstance(found.value, str):
        readings["text"] = found.value
    return Measured(readings, reason="" if len(readings) > 1 else f"the statement returned {found.said}")


def _same(value: object, expected: object) -> bool:
    # To Python, true is 1.
    return type(value) is type(expected) and value == expected
