"""Our cheap ``dataclass`` makes what the standard library's makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import pytest

from probed import lean

DECORATORS = {"library": dataclasses.dataclass, "lean": lean.dataclass}


def declared(dataclass: Callable[..., Any], **how: bool) -> Any:
    """A class with everything that ours use."""

    @dataclass(**how)
    class Value:
        shared: ClassVar[int] = 0
        name: str
        weight: float = 1.5
        parts: list[str] = field(default_factory=list)
        secret: str = field(default="x", repr=False)
        made: Callable[[], int] | None = field(default=None, compare=False)
        key: str = field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "key", f"{self.name}/{self.weight}")

    return Value


@lean.dataclass(frozen=True, slots=True)
class Kept:
    a: int
    b: tuple[str, ...] = ()


@lean.dataclass(frozen=True, slots=True)
class More(Kept):
    c: float = 0.5


HOW: tuple[dict[str, bool], ...] = (
    {"frozen": True, "slots": True},
    {"slots": True},
    {"frozen": True},
    {},
    {"eq": False},
)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_it_makes_what_the_library_makes(how: dict[str, bool]) -> None:
    told = []
    for dataclass in DECORATORS.values():
        cls = declared(dataclass, **how)
        one, same, other = cls("a", 2.0, parts=["p"]), cls("a", weight=2.0, parts=["p"], made=len), cls("b")
        told.append(
            (
                repr(one), one == same, one == other, one.key, other.parts is cls("b").parts,
                [f.name for f in dataclasses.fields(cls)], cls.__match_args__, getattr(cls, "__slots__", None),
                dataclasses.asdict(other), dataclasses.replace(one, name="z").key, cls.__hash__ is None,
                hasattr(one, "__dict__"), one == "a",
            )
        )  # fmt: skip
    assert told[0] == told[1]


@pytest.mark.parametrize("how", [how for how in HOW if how.get("frozen")], ids=str)
def test_what_is_frozen_can_be_hashed_and_not_be_changed(how: dict[str, bool]) -> None:
    cls = declared(lean.dataclass, **how)
    one = cls("a", parts=())
    assert hash(one) == hash(cls("a", parts=()))
    assert {one: 1}[cls("a", parts=(), made=len)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        one.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        del one.name


def test_what_is_frozen_can_be_copied_and_pickled() -> None:
    one = More(1, ("x",), c=2.0)
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == "More(a=1, b=('x',), c=2.0)"
    assert one != Kept(1, ("x",))


@pytest.mark.parametrize("wrong", [{}, {"b": 1}, {"a": 1, "c": 2}], ids=str)
def test_wrong_arguments_are_refused_at_the_first_instance_and_later(wrong: dict[str, int]) -> None:
    @lean.dataclass(frozen=True)
    class Fresh:
        a: int

    for _ in range(2):
        with pytest.raises(TypeError, match=r"__init__\(\)"):
            Fresh(**wrong)
    assert Fresh(1).a == 1


def test_methods_of_the_class_itself_stay() -> None:
    @lean.dataclass(slots=True)
    class Own:
        a: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    assert repr(Own(1)) == "own"
    assert Own(1) == Own(2)


def test_a_class_that_contains_itself_is_shown() -> None:
    @lean.dataclass
    class Ring:
        next: Any = None

    ring = Ring()
    ring.next = ring
    assert repr(ring).endswith("Ring(next=...)")


def test_what_it_does_not_know_is_refused_when_the_class_is_declared() -> None:
    with pytest.raises(TypeError, match="order"):
        lean.dataclass(order=True)
