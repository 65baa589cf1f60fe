"""Columns of numbers to few bytes and back, exactly. The caller deflates the whole: here like is only put to like.

Whole numbers become differences of the order that makes them smallest, relative to the least of them, byte by byte in
planes: the high bytes of small differences are runs of zeros. Other numbers become whole ones if they are decimals
(0.0147), indices if they are few (30 of 100 connections), else their bits against those of the one before.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from operator import xor

ORDERS = 2
"""A difference of differences is as far as it goes: a clock's ticks are zeros by then."""
SCALES = (1, 1_000, 1_000_000, 10, 100, 10_000, 100_000)
"""By which a decimal becomes a whole number, the likely first."""
EXACT = 2**53
"""Whole numbers up to this are themselves as float64."""
FEW = 256
_WHOLE, _FEW, _BITS = range(3)


class Writer:
    """Appends values to bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def uint(self, value: int) -> None:
        """A number of at least 0, seven bits to a byte."""
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def sint(self, value: int) -> None:
        self.uint(value << 1 if value >= 0 else (-value << 1) - 1)

    def text(self, value: str) -> None:
        raw = value.encode("utf-8", "replace")  # half a surrogate pair, from a hostile peer
        self.uint(len(raw))
        self.data += raw

    def ints(self, values: Sequence[int]) -> None:
        """As many as the reader will ask for."""
        levels = [values]
        for _ in range(ORDERS):
            if len(levels[-1]) < 2:
                break
            levels.append([after - before for before, after in pairwise(levels[-1])])
        order = min(range(len(levels)), key=lambda level: _bits(levels[level]))
        self.uint(order)
        for level in levels[:order]:
            self.sint(level[0])
        rest = levels[order]
        least = min(rest, default=0)
        self.sint(least)
        self._planes([value - least for value in rest])

    def _planes(self, values: Sequence[int]) -> None:
        width = (max(values, default=0).bit_length() + 7) // 8
        self.uint(width)
        if width > 8:
            raise OverflowError("a column of whole numbers spans more than 64 bits")
        raw = _little(array("Q", values)).tobytes() if width else b""
        for plane in range(width):
            self.data += raw[plane::8]

    def numbers(self, values: array[float]) -> None:
        """float64, each to be given back bit by bit."""
        for scale in SCALES:
            whole = _whole(values, scale)
            if whole is not None:
                self.uint(_WHOLE)
                self.uint(scale)
                self.ints(whole)
                return
        bits = array("Q", values.tobytes())
        known = dict.fromkeys(bits)
        if len(known) <= FEW and len(known) * 4 <= len(bits):
            self.uint(_FEW)
            self.uint(len(known))
            self.data += _little(array("Q", known)).tobytes()
            places = {value: index for index, value in enumerate(known)}
            self.data += bytes(places[value] for value in bits)
            return
        self.uint(_BITS)
        self._planes([bits[0], *(before ^ after for before, after in pairwise(bits))])


class Reader:
    """Takes the values off again, in the same order. ValueError or IndexError when they are not what was written."""

    def __init__(self, data: bytes) -> None:
        self.data, self._at = data, 0

    def uint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def sint(self) -> int:
        value = self.uint()
        return value >> 1 if value & 1 == 0 else -(value + 1 >> 1)

    def text(self) -> str:
        return self._take(self.uint()).decode("utf-8")

    def ints(self, count: int) -> list[int]:
        order = self.uint()
        heads = [self.sint() for _ in range(order)]
        least = self.sint()
        values = self._planes(count - order)
        if least:
            values = [value + least for value in values]
        for head in reversed(heads):
            values = list(accumulate(values, initial=head))
        return values

    def numbers(self, count: int) -> list[float]:
        way = self.uint()
        if way == _WHOLE:
            scale = self.uint()
            whole = self.ints(count)
            return list(map(float, whole)) if scale == 1 else [value / scale for value in whole]
        if way == _FEW:
            known = _floats(self._take(8 * self.uint()))
            return [known[index] for index in self._take(count)]
        bits = array("Q", accumulate(self._planes(count), xor))
        return array("d", bits.tobytes()).tolist()

    def _planes(self, count: int) -> list[int]:
        width = self.uint()
        if width > 8:
            raise ValueError(f"{width} bytes to a number")
        if width == 0:
            return [0] * count
        raw = bytearray(8 * count)
        for plane in range(width):
            raw[plane::8] = self._take(count)
        return _little(array("Q", bytes(raw))).tolist()

    def _take(self, count: int) -> bytes:
        taken = self.data[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError(f"{count} bytes expected, {len(taken)} left")
        self._at += count
        return taken


def _bits(values: Iterable[int]) -> int:
    """What a column of differences is about worth; the differences of equal numbers cost nothing."""
    return sum(abs(value).bit_length() for value in values)


def _whole(values: array[float], scale: int) -> list[int] | None:
    """The values as whole numbers of 1/scale, if every one of them comes back from it as it was."""
    whole: list[int] = []
    for value in values:
        if not -EXACT < value * scale < EXACT:  # not a number, or endless, too
            return None
        number = round(value * scale)
        if number / scale != value or (number == 0 and math.copysign(1.0, value) < 0):
            return None
        whole.append(number)
    return whole


def _floats(raw: bytes) -> list[float]:
    return array("d", _little(array("Q", raw)).tobytes()).tolist()


def _little(numbers: array[int]) -> array[int]:
    """The bytes in the file are little-endian on every machine."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
