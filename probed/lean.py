"""``dataclass`` as the standard library has it, declared cheaply: each start declares hundreds, and uses few.

The library compiles up to six methods for a class when it is declared: a fifth of what a start costs. Here ``__init__``
is compiled for the first instance, and the others are plain functions (adr/0020).
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(made=None, /, *, frozen=False, slots=False, eq=True):
        """``dataclasses.dataclass``. What it does not take is not used here."""

        def wrap(cls):
            cls.__doc__ = cls.__doc__ or cls.__name__  # else the library words one, out of the signature
            return _finish(dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots), frozen, slots, eq)

        return wrap if made is None else wrap(made)


__all__ = ["dataclass"]

_NOT_GIVEN = object()
_put = object.__setattr__


def _finish(cls: Any, frozen: bool, slots: bool, eq: bool) -> Any:
    own: dict[str, Any] = {"__init__": _first_init(cls, frozen), "__repr__": _repr}
    if eq:
        get = _getter([field.name for field in dataclasses.fields(cls) if field.compare])
        own |= {"__eq__": _eq(get), "__hash__": _hash(get) if frozen else None}
    if frozen:
        own |= {"__setattr__": _refuse, "__delattr__": _refuse}
        if slots:  # which copying and pickling would fill by assignment
            own |= {"__getstate__": _state, "__setstate__": _restore}
    for name, value in own.items():
        if name not in vars(cls) or vars(cls)[name] is None:
            setattr(cls, name, value)
    return cls


def _first_init(cls: Any, frozen: bool) -> Any:
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        cls.__init__ = _init(cls, frozen)
        cls.__init__(self, *arguments, **named)

    return init


def _init(cls: Any, frozen: bool) -> Any:
    """What the library would have made."""
    takes, does = ["self"], []
    known: dict[str, Any] = {"_put": _put, "_NOT_GIVEN": _NOT_GIVEN}
    for field in dataclasses.fields(cls):
        name = value = field.name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = field.default_factory
            value = f"_make_{name}() if {name} is _NOT_GIVEN else {name}" if field.init else f"_make_{name}()"
            default = "=_NOT_GIVEN"
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
            value = name if field.init else f"_default_{name}"
            default = f"=_default_{name}"
        elif field.init:
            default = ""
        else:  # __post_init__ gives it its value
            continue
        if field.init:
            takes.append(f"{name}{default}")
        does.append(f"_put(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        does.append("self.__post_init__()")
    exec(f"def __init__({', '.join(takes)}):\n " + "\n ".join(does or ["pass"]), known)  # noqa: S102 - as the library
    init = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _getter(names: list[str]) -> Any:
    return attrgetter(*names) if names else lambda _: ()


def _eq(get: Any) -> Any:
    def equal(self: Any, other: Any) -> Any:
        return get(self) == get(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hash(get: Any) -> Any:
    def hashed(self: Any) -> int:
        return hash(get(self))

    return hashed


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, value: Any = None) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        _put(self, field.name, value)
