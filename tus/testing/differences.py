"""Comparison of values with partial expectations, and the text forms of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final


class Placeholder:
    """A value that the exchange makes.

    The first comparison accepts any value and keeps it; later ones expect the same value. In a reply the placeholder
    stands for that value. ``"text" + placeholder`` is the value after a text, such as a URL that ends with an id.

    Attributes:
        name: its name in a difference.
        value: the kept value.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: list[Any] = []

    @property
    def value(self) -> Any:
        if not self._values:
            raise AssertionError(f"the placeholder {self.name!r} has no value yet")
        return self._values[0]

    def matches(self, came: object) -> bool:
        """Return whether the value equals the kept one; the first value is kept and matches."""
        if not self._values:
            self._values.append(came)
        return bool(self.value == came)

    def __radd__(self, prefix: str) -> After:
        return After(prefix, self)

    def __repr__(self) -> str:
        return repr(self._values[0]) if self._values else f"<{self.name}>"


@dataclass(frozen=True)
class After:
    """A placeholder's value after a text."""

    prefix: str
    placeholder: Placeholder

    def matches(self, came: object) -> bool:
        is_text = isinstance(came, str) and came.startswith(self.prefix)
        return is_text and self.placeholder.matches(str(came)[len(self.prefix) :])

    def __repr__(self) -> str:
        return f"{self.prefix!r} + {self.placeholder!r}"


class Absent:
    """The value of a field that is missing."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = Absent()


@dataclass(frozen=True)
class Compared:
    """One field with its expected and its actual value."""

    name: str
    expected: str
    came: str
    is_same: bool


def compare(name: str, expected: object, came: object) -> Iterator[Compared]:
    """Compare a value with its expectation, field by field."""
    if isinstance(expected, Mapping) and came is not ABSENT and came is not None:
        for key, value in expected.items():
            yield from compare(f"{name}.{key}", value, member(came, str(key)))
    elif isinstance(expected, list | tuple) and isinstance(came, list | tuple) and len(expected) == len(came):
        for number, (one, other) in enumerate(zip(expected, came, strict=True)):
            yield from compare(f"{name}[{number}]", one, other)
        if not expected:
            yield Compared(name, show(expected), show(came), True)
    else:
        yield Compared(name, show(expected), show(came), is_expected(expected, came))


def is_expected(expected: object, came: object) -> bool:
    """Return whether a value meets its expectation."""
    if isinstance(expected, Placeholder | After):
        return expected.matches(came)
    if expected is ...:
        return came is not None and came is not ABSENT
    if callable(expected) and not isinstance(expected, type):
        return came is not ABSENT and bool(expected(came))
    return bool(expected == came)


def member(value: object, name: str) -> object:
    """Return a field of a value, or a header field if the value is a list of header fields."""
    if isinstance(value, Mapping):
        return value.get(name, ABSENT)
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return header_of(value, name)
    return getattr(value, name, ABSENT)


def header_of(pairs: Iterable[tuple[str, str]], name: str) -> object:
    """Return the value of a header field; the values of a repeated one are joined by commas."""
    found = [value for key, value in pairs if key.lower() == name.lower()]
    return ", ".join(found) if found else ABSENT


# -- Values as text -----------------------------------------------------------------------------------------------


def set_fields(value: Any) -> Iterator[tuple[str, object]]:
    """Yield the fields of a dataclass whose value is not the default."""
    for each in fields(value):
        found = getattr(value, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if default is MISSING or type(found) is not type(default) or found != default:
            yield each.name, found


def show(value: object) -> str:
    """Return a value as one line of text; fields of dataclasses that have their default are left out."""
    match value:
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case bytes() if len(value) > 60:
            return f"{value[:60]!r}... ({len(value)} bytes)"
        case list():
            return f"[{', '.join(map(show, value))}]"
        case dict():
            return f"{{{', '.join(f'{key!r}: {show(one)}' for key, one in value.items())}}}"
    if type(value) is tuple:
        return f"({', '.join(map(show, value))}{',' if len(value) == 1 else ''})"
    if is_dataclass(value) and not isinstance(value, type | After):
        return f"{type(value).__name__}({', '.join(f'{name}={show(one)}' for name, one in set_fields(value))})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"<{value.__qualname__}>"
    return "..." if value is ... else repr(value)


def show_header(value: object) -> str:
    """Return the value of a header field, without quotation marks."""
    return value if isinstance(value, str) else show(value)


def show_body(body: bytes) -> list[str]:
    """Return the first lines of a body."""
    return [f"    {text}" for text in body.decode(errors="replace").splitlines()[:20]]
