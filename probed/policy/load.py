"""Policies resolved to numbers: shapes, names that must meet, bounds.

Every problem of every file is reported at once; nothing is half-applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from probed import evidence, strict_yaml
from probed.config.load import missing_files
from probed.config.settings import Defaults
from probed.config.values import Duration, Name
from probed.errors import ConfigError, Problem
from probed.model import (
    Change,
    Condition,
    Detect,
    Example,
    Increase,
    Occurrence,
    Policy,
    Question,
    Severity,
    Threshold,
)
from probed.policy import conditions, layers, parameters, questions
from probed.policy.layers import Filed
from probed.policy.site import Site
from probed.strict_yaml import Document, Strict, did_you_mean, no_items

Catalogue = Mapping[str, Set[str]]
"""Probe name -> the readings it can give."""

SHORTEST, LONGEST = 0.1, 7 * 86400.0
"""Seconds between two cycles: more often is a flood, more seldom is never."""
API_PATHS = ("history", "rollback", "export", "import")
"""No policy can be called so: a request for it would get something else."""

Count = int | str
"""A number, or the name of a parameter."""


class ThresholdRule(Strict):
    type: Literal["threshold"]
    when: str
    count: Count
    resolve_count: Count = 2
    max_gap: int = Field(default=5, ge=0, le=10_000)
    resolve_when: str | None = None


class IncreaseRule(Strict):
    type: Literal["increase"]
    reading: str
    window: Duration
    at_least: int | float | str
    resolve_count: Count = 2


class ChangeRule(Strict):
    type: Literal["change"]
    reading: str


class OccurrenceRule(Strict):
    type: Literal["occurrence"]
    reading: str


class ExampleText(Strict):
    says: str
    samples: str | int | float
    events: str


SeverityWord = Literal["fatal", "critical", "normal"]


class PolicyFile(Strict):
    """One event policy, complete. An override names only the keys that it changes."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Stable identifier of the event type; the file's name."
    )
    name: str = Field(min_length=1, description="The event's name for people.")
    group: str = Field(default="Custom", description="Heading under which the event is listed.")
    severity: SeverityWord
    replica_severity: SeverityWord | None = Field(default=None, description="Severity on a node known to be a replica.")
    enabled: bool = True
    can_disable: bool = Field(default=True, description="Whether an operator may switch monitoring off.")
    fixed: bool = Field(default=False, description="true: the rule cannot be edited.")
    description: str = ""
    suggestion: str = Field(default="", description="What to do about it.")
    probe: str = Field(description="The probe whose samples are judged.")
    params: dict[str, int | float | str] = Field(default_factory=dict)
    detect: Annotated[ThresholdRule | IncreaseRule | ChangeRule | OccurrenceRule, Field(discriminator="type")]
    interval: Duration | None = Field(default=None, description="Between two cycles; default defaults.interval.")
    timeout: Duration | None = Field(default=None, description="Deadline of a cycle; default defaults.timeout.")
    confirm_interval: Duration | None = Field(default=None, description="The cadence while a streak is pending.")
    switchover_grace: bool = Field(
        default=False, description="Inconclusive for defaults.switchover_grace after a switchover."
    )
    evidence: list[str] = Field(default_factory=no_items, description="Collectors whose snapshots an event is to have.")
    instances: list[Name] = Field(default_factory=no_items, description="Where it applies; default: everywhere.")
    http: questions.Http | None = Field(default=None, description="What is asked, with probe: http.")
    tcp: questions.Tcp | None = Field(default=None, description="What is asked, with probe: tcp.")
    sql: questions.Sql | None = Field(default=None, description="What is asked, with probe: sql.")
    examples: list[ExampleText] = Field(default_factory=no_items)


def load(
    directory: Path | None,
    catalogue: Catalogue,
    defaults: Defaults,
    *,
    files: Sequence[Path] = (),
    site: Site | None = None,
) -> dict[str, Policy]:
    """All policies as the files say, by id, in the order of their names. ConfigError carries every problem found.

    ``files`` are laid over the built-in policies like those of ``directory``, without being installed there. What
    depends on where they are used is checked when ``site`` is given.
    """
    return resolve_all(*layers.read(directory, files), catalogue, defaults, site)


def resolve_all(
    filed: Mapping[str, Filed],
    problems: Sequence[Problem],
    catalogue: Catalogue,
    defaults: Defaults,
    site: Site | None = None,
) -> dict[str, Policy]:
    """What was read as policies. ConfigError carries every problem: those of the reading, and of each document."""
    problems = list(problems)
    policies: dict[str, Policy] = {}
    for identity, item in filed.items():
        try:
            policies[identity] = resolve(item.document, catalogue, defaults, site)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return policies


def resolve(document: Document, catalogue: Catalogue, defaults: Defaults, site: Site | None = None) -> Policy:
    """One complete document as a policy with every parameter in base units. ConfigError carries every problem."""
    try:
        file = strict_yaml.validate(document, PolicyFile)
    except ConfigError as error:
        # Shape and values are told together, also when the shape alone would end the reading.
        told = {problem.path for problem in error.problems}
        more = [problem for problem in _bad_values(document) if problem.path not in told]
        problems = [*error.problems, *more]
        raise ConfigError(sorted(problems, key=lambda problem: (problem.line, problem.column))) from None
    resolver = _Resolver(document, file, catalogue, defaults)
    policy = resolver.policy()
    if site is not None:
        for path, message in site.complaints(policy.id, policy.question, policy.instances, policy.enabled):
            resolver.complain(path, message)
        if policy.question is not None:
            resolver.problems += missing_files(document)
    if resolver.problems:
        raise ConfigError(resolver.problems)
    return policy


def _bad_values(document: Document) -> Iterable[Problem]:
    """Parameters out of bounds, in a document that is no policy yet."""
    params = document.data.get("params") if isinstance(document.data, dict) else None
    for name, value in params.items() if isinstance(params, dict) else ():
        try:
            parameters.parse(name, value)
        except ValueError as error:
            yield document.problem(("params", name), str(error))


class _Resolver:
    """Collects the problems that only a whole policy shows: names that do not meet, contradictions."""

    def __init__(self, document: Document, file: PolicyFile, catalogue: Catalogue, defaults: Defaults) -> None:
        self.document, self.file, self.catalogue, self.defaults = document, file, catalogue, defaults
        self.problems: list[Problem] = []
        self.readings: Set[str] = catalogue.get(file.probe, frozenset())
        self.params = self.parameters()

    def complain(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def policy(self) -> Policy:
        file, defaults = self.file, self.defaults
        if file.id in API_PATHS:
            self.complain(("id",), f"the API has /policies/{file.id} for something else; choose another id")
        if file.probe not in self.catalogue:
            hint = did_you_mean(file.probe, sorted(self.catalogue))
            self.complain(("probe",), f'no such probe "{file.probe}"{hint}')
        if not file.enabled and not file.can_disable:
            self.complain(("enabled",), f'"{file.id}" is mandatory (can_disable: false) and cannot be switched off')
        interval = file.interval or defaults.interval
        for key in ("interval", "confirm_interval"):
            given = getattr(file, key)
            if given is not None and not SHORTEST <= given <= LONGEST:
                self.complain((key,), f"expected a duration from 100ms to 7d, got {given:g} s")
        timeout = file.timeout or min(defaults.timeout, interval * 0.8)
        if timeout >= interval:
            self.complain(("timeout",), f"expected a duration below the interval ({interval:g} s), got {timeout:g} s")
        if file.confirm_interval is not None and file.confirm_interval > interval:
            self.complain(("confirm_interval",), f"expected at most the interval ({interval:g} s)")
        self.unused_parameters()
        self.collectors()
        return Policy(
            id=file.id,
            name=file.name,
            group=file.group,
            severity=Severity(file.severity),
            replica_severity=Severity(file.replica_severity) if file.replica_severity else None,
            probe=file.probe,
            detect=self.detect(),
            enabled=file.enabled,
            can_disable=file.can_disable,
            fixed=file.fixed,
            description=_one_line(file.description),
            suggestion=_one_line(file.suggestion),
            params=dict(self.params),
            interval=interval,
            timeout=timeout,
            confirm_interval=file.confirm_interval,
            switchover_grace=file.switchover_grace,
            evidence=tuple(file.evidence),
            examples=self.examples(),
            source=self.document.where,
            question=self.question(),
            instances=tuple(file.instances),
        )

    def question(self) -> Question | None:
        file = self.file
        for key in questions.GENERIC:
            given = getattr(file, key) is not None
            if given and file.probe != key:
                message = f"means nothing with probe: {file.probe}; write probe: {key}"
                self.problems.append(self.document.problem((key,), message, at_key=True))
            if file.probe == key and not given:
                self.complain(("probe",), f'probe "{key}" asks what the policy says: the key "{key}" is missing')
        return questions.question(file.probe, file.http, file.tcp, file.sql, alone=file.timeout is not None)

    def parameters(self) -> dict[str, float | str]:
        parsed: dict[str, float | str] = {}
        for name, value in self.file.params.items():
            try:
                parsed[name] = parameters.parse(name, value)
            except ValueError as error:
                self.complain(("params", name), str(error))
                parsed[name] = 1.0  # so that the rule is checked too, and all problems come at once
        return parsed

    def unused_parameters(self) -> None:
        """A parameter that nothing uses is a slip of the pen; one that an override's rule left over is not."""
        texts = [str(value) for _, value in self.file.detect]
        used = {word for text in texts for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
        for name in self.params.keys() - used:
            if not self.document.files or ("params", name) in self.document.files:
                hint = did_you_mean(name, sorted(self.params.keys() - {name}))
                message = f'no part of the rule uses the parameter "{name}"{hint}'
                self.problems.append(self.document.problem(("params", name), message, at_key=True))

    def collectors(self) -> None:
        known = evidence.names()
        for index, name in enumerate(self.file.evidence):
            if name not in known:
                self.complain(("evidence", index), f'no such collector "{name}"{did_you_mean(name, sorted(known))}')
            elif name in self.file.evidence[:index]:
                self.complain(("evidence", index), f'"{name}" stands here twice')

    def detect(self) -> Detect:
        rule = self.file.detect
        match rule:
            case ThresholdRule():
                return Threshold(
                    when=self.condition(rule.when, "when"),
                    count=self.count(rule.count, "count"),
                    resolve_count=self.count(rule.resolve_count, "resolve_count"),
                    max_gap=rule.max_gap,
                    resolve_when=self.condition(rule.resolve_when, "resolve_when") if rule.resolve_when else None,
                )
            case IncreaseRule():
                return Increase(
                    reading=self.reading(rule.reading),
                    window=rule.window,
                    at_least=self.above_zero(rule.at_least, "at_least"),
                    resolve_count=self.count(rule.resolve_count, "resolve_count"),
                )
            case ChangeRule():
                return Change(self.reading(rule.reading))
            case OccurrenceRule():
                return Occurrence(self.reading(rule.reading))

    def condition(self, text: str, key: str) -> Condition:
        try:
            return conditions.parse(text, self.params, self.readings)
        except ValueError as error:
            if self.readings:  # an unknown probe is told once, not once more for each of its readings
                self.complain(("detect", key), str(error))
            return Condition()

    def reading(self, name: str) -> str:
        if self.readings and name not in self.readings:
            hint = did_you_mean(name, sorted(self.readings))
            self.complain(("detect", "reading"), f'probe "{self.file.probe}" has no reading "{name}"{hint}')
        return name

    def number(self, value: int | float | str, key: str) -> float:
        if not isinstance(value, str):
            return float(value)
        found = self.params.get(value)
        if found is None or isinstance(found, str):
            hint = did_you_mean(value, sorted(self.params))
            self.complain(("detect", key), f'"{value}" is not a parameter of this policy{hint}')
            return 1.0
        return found

    def above_zero(self, value: int | float | str, key: str) -> float:
        number = self.number(value, key)
        if number <= 0:
            self.complain(("detect", key), f"expected a number above 0, got {number:g}")
        return number

    def count(self, value: Count, key: str) -> int:
        number = self.number(value, key)
        if number != int(number) or number < 1:
            self.complain(("detect", key), f"expected a whole number of at least 1, got {number:g}")
            return 1
        return int(number)

    def examples(self) -> tuple[Example, ...]:
        parsed = []
        for index, example in enumerate(self.file.examples):
            samples, events = tuple(str(example.samples).split()), tuple(example.events.split())
            if len(samples) != len(events):
                message = f"expected one event token per sample, got {len(samples)} samples and {len(events)} events"
                self.complain(("examples", index), message)
                continue
            parsed.append(Example(example.says, samples, events))
        return tuple(parsed)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def policy_schema() -> dict[str, Any]:
    """JSON Schema of a complete policy file."""
    return PolicyFile.model_json_schema()
