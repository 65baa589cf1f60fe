"""Prometheus' Alertmanager, API v2. It keeps no state over a restart, so what is open is posted again every minute.

An alert is known by its labels alone: they are a function of the event's type, target and severity, so that several
observers of one cluster raise one alert. While an event is open its end lies ahead and moves with every post; a
resolution is posted until it is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from probed.clock import Clock
from probed.model import Event, EventState, Severity
from probed.outlets import TEST_EVENT, Door, Link, post
from probed.outlets.wording import summary
from probed.redaction import clean
from probed.store.notices import Notice, Told

REFRESH_SECONDS = 60.0
LASTS = 4
"""An alert that is not posted again ends by itself after so many refreshes."""
OCCURRENCE_SECONDS = 300.0
"""How long what has no end is shown as firing: longer than a usual group_wait."""
WATCHDOG = "ProbedWatchdog"
MOST = 200
"""Alerts in one request."""

SEVERITIES: Mapping[Severity, str] = {
    Severity.FATAL: "critical", Severity.CRITICAL: "warning", Severity.NORMAL: "info",
}  # fmt: skip

Alert = dict[str, object]


class AlertmanagerOutlet:
    kind = "alertmanager"
    batch = MOST

    def __init__(
        self,
        door: Door,
        clock: Clock,
        *,
        observer: str,
        severities: Mapping[Severity, str] = SEVERITIES,
        link: Link | None = None,
        watchdog: bool = False,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self.refresh_seconds: float | None = refresh_seconds
        self._lasts = LASTS * refresh_seconds
        self._door, self._clock = door, clock
        self._observer, self._severities = observer, severities
        self._link = link or Link()
        self._watchdog = watchdog

    async def send(self, notices: Sequence[Notice]) -> str:
        newest = {notice.event.id: notice for notice in notices}  # the last one says all that it would remember
        return await self._post([self._alert(notice.event, notice.told) for notice in newest.values()])

    async def refresh(self, events: Sequence[Event]) -> str:
        alerts = [self._alert(event, Told.OPENED) for event in events]
        if self._watchdog:
            alerts.append(self._dead_mans_switch())
        answer = ""
        for start in range(0, len(alerts), MOST):
            answer = await self._post(alerts[start : start + MOST])
        return answer

    async def test(self) -> str:
        now = self._clock.wall()
        labels = {"alertname": TEST_EVENT, "severity": "info", "observer": self._observer}
        text = "Message of probed to see that it arrives; nothing has happened"
        return await self._post([_alert(labels, {"summary": text}, now, now + 60)])

    async def _post(self, alerts: Sequence[Alert]) -> str:
        return await post(self._door, json.dumps(alerts).encode(), {"Content-Type": "application/json"})

    def _alert(self, event: Event, told: Told) -> Alert:
        now = self._clock.wall()
        end = now + self._lasts
        if told is Told.OCCURRED:
            end = now + OCCURRENCE_SECONDS
        elif told is Told.RESOLVED or event.state is EventState.RESOLVED:
            end = event.resolved_at or now
        annotations = {
            "summary": summary(event),
            "description": "\n".join(filter(None, (clean(event.message, 1000), event.suggestion))),
            "event_id": event.id,
            "runbook_url": self._link.runbook(event.event),
        }
        return _alert(self.labels(event), annotations, event.opened_at, end, self._link.event(event.id))

    def labels(self, event: Event) -> dict[str, str]:
        """What the alert is known by. The instance's own labels cannot take the place of ours."""
        target = event.target
        ours = {
            "alertname": event.event,
            "severity": self._severities[event.severity],
            "probed_severity": event.severity.value,
            "db_instance": target.instance,
            "node": target.node,
            "component": target.component,
            "member": target.member,
        }
        own = {_label(name): value for name, value in sorted(event.labels.items())}
        return {name: _text(value) for name, value in (own | ours).items() if value}

    def _dead_mans_switch(self) -> Alert:
        labels = {"alertname": WATCHDOG, "severity": "none", "observer": self._observer}
        says = {
            "summary": f"probed on {self._observer} is alive",
            "description": "Fires always; see to it when it stops.",
        }
        now = self._clock.wall()
        return _alert(labels, says, now, now + self._lasts)


def _alert(labels: Mapping[str, str], annotations: Mapping[str, str], start: float, end: float, url: str = "") -> Alert:
    alert: Alert = {
        "labels": dict(labels),
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _instant(start),
        "endsAt": _instant(max(start, end)),
    }
    return {**alert, "generatorURL": url} if url else alert


def _label(name: str) -> str:
    """A label's name as every Alertmanager takes it (before 0.28: letters, digits and underscores)."""
    word = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{word}" if word[:1].isdigit() else word or "_"


def _text(value: str) -> str:
    # Half a surrogate pair, which a peer's JSON can carry, is no UTF-8.
    return value.encode("utf-8", "replace").decode("utf-8")


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
