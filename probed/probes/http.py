from time import perf_counter

from probed.model import HttpQuestion
from probed.probes import Context, Readings, probe
from probed.probes._component import READINGS, as_expected, readings


@probe(
    kinds=("http",),
    readings={**READINGS, "response_seconds": "from the question to the end of the answer, seconds"},
)
async def http(context: Context) -> Readings:
    """A question of your own over HTTP: a policy with ``probe: http`` says it under the key ``http``.

    ``url`` is asked as it stands, by ``method`` GET (or HEAD), with the ``*_file`` keys and ``basic_auth`` of a
    component, which go to that address alone. Redirects are not followed. Failed: no answer, or another one than
    ``expect_status`` (else any 2xx), ``expect_json`` (these values, among others) and ``expect_body`` (this text) say.
    Blind: DNS, a certificate that does not verify, a credential that is refused.
    """
    question = context.question
    assert isinstance(question, HttpQuestion)
    started = perf_counter()
    answer = await as_expected(context, question.method)
    return {**readings(answer), "response_seconds": answer.heard_at - started}
