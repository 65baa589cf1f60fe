"""Components declared as an operator does, sampled over the whole path from settings to sample."""

from __future__ import annotations

from typing import Any

from probed.clock import SystemClock
from probed.config.settings import Defaults, Instance
from probed.model import Sample
from probed.probes import catalogue
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import take_sample
from probed.watching import Cycle, plan

PATIENT = 10.0
"""Deadline of cycles that must come to their end by themselves: this machine may be busy."""


def declared(name: str, url: str, **more: Any) -> Cycle:
    """The one cycle of an instance with one component. ``more`` are keys of its settings."""
    instance = Instance.model_validate({"name": "orders", "components": {name: {"url": url, **more}}})
    (cycle,) = plan(instance, (), {}, catalogue(), Defaults()).cycles
    return cycle


async def sampled(http: HttpClient, cycle: Cycle, deadline: float = PATIENT) -> Sample:
    return await take_sample(cycle.probe, context_for(cycle.reach, deadline, http), deadline, SystemClock())
