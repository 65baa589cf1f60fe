"""Reports of inspections as files to read: Markdown, HTML and PDF. Made beside the daemon, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs, web
from msgspec.structs import replace

from probed.api.inspections import PATH, attachment, found_of
from probed.api.problems import Refused
from probed.api.routing import Call, Handler, Route
from probed.api.served import Served
from probed.errors import MissingExtra, Unprintable
from probed.inspection.packing import report_of
from probed.inspection.printing import Form, Press

MEDIA: Mapping[Form, str] = {
    Form.MARKDOWN: "text/markdown; charset=utf-8",
    Form.HTML: "text/html; charset=utf-8",
    Form.PDF: "application/pdf",
}
_SAYS: Mapping[Form, str] = {
    Form.MARKDOWN: "One report as Markdown.",
    Form.HTML: "One report as one HTML file that needs nothing else.",
    Form.PDF: "One report as PDF, to print and to send; 501 says what to install when that is not there.",
}


def routes(served: Served) -> list[Route]:
    press = Press()

    def handler(form: Form) -> Handler:
        async def as_file(call: Call) -> web.Response:
            record = await found_of(served, call.path("id"))
            if press.is_full:
                detail = "as many files are being made as may be at a time; try again later"
                raise Refused("too-many", detail, headers={hdrs.RETRY_AFTER: "10"})
            try:
                body = await press.file(record, form)
            except MissingExtra as error:
                raise Refused("not-installed", str(error)) from None
            except Unprintable as error:
                raise Refused("unprintable", str(error)) from None
            name = attachment(report_of(replace(record, parts=())), form.value)
            return web.Response(body=body, headers={hdrs.CONTENT_TYPE: MEDIA[form], **name})

        return as_file

    return [
        Route(
            "GET", f"{PATH}/{{id:[^.]+}}.{form}", handler(form), _SAYS[form], media=MEDIA[form].partition(";")[0],
            refusals=("not-found", "too-many", "unprintable", *(("not-installed",) if form is Form.PDF else ())),
            endless=True,
        )
        for form in Form
    ]  # fmt: skip
