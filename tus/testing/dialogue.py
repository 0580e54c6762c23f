"""Tests of a protocol's rules as dialogues, without a store, a server or a clock.

An exchange (:func:`tus.protocols.exchange.exchange`) is a generator of effects. :func:`dialogue` acts as its runner. It
starts the exchange with a request, compares each effect with the next line, and sends the reply of that line back. It
compares the response with the last line. The test of a rule has about five lines::

    >>> from tus.protocols.effects import Load, Receive
    >>> from tus.testing.dialogue import ID, an_upload, asks, dialogue, received, responds, tus1

    >>> response = dialogue(
    ...     tus1.patch(ID, offset=2, body=3),
    ...     asks(Load, ID).gets(an_upload(offset=2, length=9)),
    ...     asks(Receive, intake={"limit": 7}).gets(received(offset=5)),
    ...     responds(204, {"Upload-Offset": 5, "Upload-Expires": None}),
    ... )

An expectation names only the fields that matter:

- A dictionary matches a value with these fields, such as the intake with the limit 7. In a response it matches these
  header fields; None means that the field must be absent.
- ``...`` matches any value but None, and a header field that is present.
- A function matches each value for which it returns true.
- A :class:`Placeholder` matches a value that the exchange makes, such as an id.
- A whole effect, such as ``asks(Load(ID))``, must match in all fields.

A reply is a value, an error that is thrown in (``fails``), or a function that makes the value from the effect. The
default is None. Every effect needs a line, and the last line is :func:`responds` or :func:`raises`.

The options of the server decide which effects come. With ``authorize`` one effect asks for permission, and with
``webhook`` there are effects for the hooks. Neither option is called.

If a line differs, the :class:`AssertionError` shows the dialogue up to that line, and the difference field by field::

    >>> dialogue(
    ...     tus1.patch(ID, offset=2, body=3),
    ...     asks(Load, ID).gets(an_upload(offset=3, length=9)),
    ...     responds(204, {"Upload-Offset": 5}),
    ... )
    Traceback (most recent call last):
    ...
    AssertionError: the dialogue differs at line 2 (- expected, + actual)
    <BLANKLINE>
        PATCH http://example.org/files/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            Tus-Resumable: 1.0.0
            Content-Type: application/offset+octet-stream
            Upload-Offset: 2
            Content-Length: 3
        asks Load(upload_id='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')
        gets Upload(id='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', offset=3, length=9)
      - responds 204
      + responds 409 Conflict
      -     Upload-Offset: 5
      +     Upload-Offset: 3
            Tus-Resumable: 1.0.0
            Content-Type: text/plain; charset=utf-8
            X-Content-Type-Options: nosniff
            Content-Length: 62
            The offset of this upload is 3; send the bytes from there on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from tus.models import Request, Response, Upload
from tus.options import Options
from tus.protocols.effects import Create, Received
from tus.protocols.exchange import exchange
from tus.protocols.tus1.replies import EXTENSIONS
from tus.testing.differences import (
    ABSENT,
    After,
    Compared,
    Placeholder,
    compare,
    header_of,
    is_expected,
    member,
    set_fields,
    show,
    show_body,
    show_header,
)
from tus.testing.requests import NO_FIELDS, URL, HeaderFields, Ietf, Tus1, tus1

__all__ = [
    "ID",
    "OTHER",
    "URL",
    "Ietf",
    "Placeholder",
    "Tus1",
    "an_upload",
    "asks",
    "created",
    "dialogue",
    "raises",
    "received",
    "responds",
    "tus1",
]

#: Two upload ids.
ID: Final = "a" * 32
OTHER: Final = "b" * 32


# -- Lines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asks:
    """A line of a dialogue: an effect and the reply to it. See :func:`asks`."""

    kind: type
    named: Mapping[str, object]
    reply: object = None

    def gets(self, reply: object) -> Asks:
        """Send back this value, or the value that this function makes of the effect."""
        return replace(self, reply=reply)

    def fails(self, error: BaseException) -> Asks:
        """Throw this error in."""
        return replace(self, reply=error)

    def compare(self, effect: object) -> list[Compared]:
        """Compare the fields of an effect of this kind."""
        return [one for name, value in self.named.items() for one in compare(name, value, getattr(effect, name))]

    def answer(self, effect: object) -> object:
        """Return the reply to an effect."""
        is_function = callable(self.reply) and not isinstance(self.reply, type | Placeholder)
        return _fill(self.reply(effect) if is_function else self.reply)  # type: ignore[operator]

    def lines(self) -> list[str]:
        """Return the expectation as lines of text."""
        return [f"asks {self.kind.__name__}", *(f"    {name}: {show(value)}" for name, value in self.named.items())]


def asks(effect: object, *values: object, **named: object) -> Asks:
    """Expect an effect.

    Args:
        effect: its class, or the whole effect.
        *values: the first of its fields, in their order.
        **named: others of its fields.

    Raises:
        TypeError: effects of this class have no such field.
    """
    if not isinstance(effect, type):
        return Asks(type(effect), dict(_fields_of(effect)))
    names = [each.name for each in fields(effect)]
    if len(values) > len(names) or not named.keys() <= set(names[len(values) :]):
        raise TypeError(f"{effect.__name__} has the fields {', '.join(names) or '(none)'}")
    return Asks(effect, dict(zip(names, values, strict=False)) | named)


def _fields_of(value: Any) -> list[tuple[str, object]]:
    return [(each.name, getattr(value, each.name)) for each in fields(value)]


@dataclass(frozen=True)
class Responds:
    """The last line of a dialogue: a response. See :func:`responds`."""

    status: int
    headers: HeaderFields
    body: object

    def compare(self, response: Response, body: bytes) -> list[Compared]:
        """Compare a response and its body."""
        compared: list[Compared] = []
        for name, value in self.headers.items():
            expected = ABSENT if value is None else str(value) if isinstance(value, int) else value
            came = header_of(response.headers, name)
            compared.append(Compared(name, show_header(expected), show_header(came), is_expected(expected, came)))
        if self.body is not None:
            compared += _compare_body(self.body, body)
        return compared

    def lines(self) -> list[str]:
        """Return the expectation as lines of text."""
        named = {name: ABSENT if value is None else value for name, value in self.headers.items()}
        found = [f"responds {self.status}", *(f"    {name}: {show_header(value)}" for name, value in named.items())]
        return found if self.body is None else [*found, f"    body: {show(self.body)}"]


def _compare_body(expected: object, body: bytes) -> Iterator[Compared]:
    if isinstance(expected, str):
        text = body.decode(errors="replace")
        yield Compared("body has", show(expected), show(text), expected in text)
    elif isinstance(expected, Mapping):
        try:
            members = json.loads(body)
        except ValueError:
            yield Compared("body", "JSON", show(body), False)
            return
        for name, value in expected.items():
            yield from compare(f"body.{name}", ABSENT if value is None else value, member(members, name))
    else:
        yield from compare("body", expected, body)


def responds(status: int, headers: HeaderFields = NO_FIELDS, body: object = None) -> Responds:
    """Expect the response.

    Args:
        status: its status.
        headers: some of its header fields; None for one that must be absent.
        body: a text that its body contains, the members of a JSON object, or the whole body as bytes.
    """
    return Responds(status, headers, body)


@dataclass(frozen=True)
class Raises:
    """The last line of a dialogue: an error. See :func:`raises`."""

    kind: type[BaseException]

    def lines(self) -> list[str]:
        """Return the expectation as lines of text."""
        return [f"raises {self.kind.__name__}"]


def raises(kind: type[BaseException]) -> Raises:
    """Expect an error of this class from the exchange. Refusals are responses."""
    return Raises(kind)


# -- Replies ------------------------------------------------------------------------------------------------------


def an_upload(**values: Any) -> Upload:
    """Return an upload with these attributes, and the id :data:`ID`."""
    return Upload(**{"id": ID, **values})


def created(**values: Any) -> Callable[[Create], Upload]:
    """Reply to :class:`~tus.protocols.effects.Create` with its draft, which gets the id :data:`ID` if it has none.

    Args:
        **values: attributes of the upload that differ from the draft's.
    """
    return lambda effect: replace(effect.draft, **{"id": effect.draft.id or ID, **values})


def received(**values: Any) -> Callable[[Any], Received]:
    """Reply to :class:`~tus.protocols.effects.Receive` with the effect's upload after the body.

    Args:
        **values: attributes of :class:`~tus.protocols.effects.Received`, and attributes of the upload.
    """
    names = {each.name for each in fields(Received)}
    result = {name: value for name, value in values.items() if name in names}
    changes = {name: value for name, value in values.items() if name not in names}
    return lambda effect: Received(**{"upload": replace(effect.upload, **changes), **result})


def _fill(value: Any) -> Any:
    """Return a reply with the values of its placeholders."""
    if isinstance(value, Placeholder):
        return value.value
    if isinstance(value, After):
        return f"{value.prefix}{value.placeholder.value}"
    if isinstance(value, list):
        return [_fill(one) for one in value]
    if type(value) is tuple:
        return tuple(_fill(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: _fill(one) for name, one in _fields_of(value)})
    return value


# -- The dialogue -------------------------------------------------------------------------------------------------


def dialogue(
    request: Request,
    *lines: Asks | Responds | Raises,
    now: float = 0.0,
    principal: str | None = None,
    extensions: Iterable[str] = EXTENSIONS,
    **options: object,
) -> Response | None:
    """Run an exchange and compare it with the lines.

    Args:
        request: the head of the request, such as :meth:`Tus1.patch` makes it.
        *lines: :func:`asks` for each effect, and :func:`responds` or :func:`raises` at the end.
        now: seconds since 1970.
        principal: the principal that sends the request, if the caller of the exchange knows it.
        extensions: the tus extensions of the server; all by default.
        **options: options of the server; the default of ``upload_path`` is the path of :data:`URL`.

    Returns:
        The response; None after an error.

    Raises:
        AssertionError: the exchange differs from the lines.
        TypeError: the last line is not an end, or an earlier line is one.
    """
    __tracebackhide__ = True  # pytest then shows the test, where the lines are
    *asked, end = lines or (None,)
    if not isinstance(end, Responds | Raises) or not all(isinstance(line, Asks) for line in asked):
        raise TypeError("a dialogue has asks() for each effect, and ends with one responds() or raises()")
    configured = Options.build(**{"store": "memory:", "upload_path": "/files", **options})
    steps = exchange(request, configured, frozenset(extensions), now, principal)
    said = [f"{request.method} {request.url}"]
    said += [f"    {name}: {value}" for name, value in request.headers.items()]
    reply: object = None
    for number, line in enumerate(lines, 1):
        try:
            effect: object = steps.throw(reply) if isinstance(reply, BaseException) else steps.send(reply)
        except StopIteration as stopped:
            response: Response = stopped.value
            body = b"".join(response.body) if isinstance(response.body, tuple | list) else b""
            difference = _differ_at_end(line, response, body)
            if difference:
                raise AssertionError(_report(number, said, difference)) from None
            return response
        except Exception as error:
            if isinstance(line, Raises) and isinstance(error, line.kind):
                return None
            raise AssertionError(_report(number, said, _differ(line.lines(), [f"raises {error!r}"]))) from error
        difference = _differ_at_effect(line, effect)
        if difference:
            steps.close()
            raise AssertionError(_report(number, said, difference))
        assert isinstance(line, Asks)
        reply = line.answer(effect)
        said += [f"asks {show(effect)}", f"{'fails' if isinstance(reply, BaseException) else 'gets'} {show(reply)}"]
    raise AssertionError("unreachable")  # the last line is an end, so the loop has returned or raised


def _differ_at_effect(line: Asks | Responds | Raises, effect: object) -> list[str]:
    """Return the difference between a line and an effect; empty if the effect meets the expectation."""
    if not isinstance(line, Asks) or type(effect) is not line.kind:
        came = [f"    {name}: {show(value)}" for name, value in set_fields(effect)]
        return _differ(line.lines(), [f"asks {type(effect).__name__}", *came])
    compared = line.compare(effect)
    if all(one.is_same for one in compared):
        return []
    rest = [f"    {name}: {show(value)}" for name, value in set_fields(effect) if name not in line.named]
    return [f"  asks {line.kind.__name__}", *_signed(compared), *(f"  {text}" for text in rest)]


def _differ_at_end(line: Asks | Responds | Raises, response: Response, body: bytes) -> list[str]:
    """Return the difference between a line and the response; empty if the response meets the expectation."""
    if not isinstance(line, Responds):
        came = [f"responds {response.status} {response.reason}"]
        came += [f"    {name}: {value}" for name, value in response.headers]
        return _differ(line.lines(), [*came, *show_body(body)])
    compared = line.compare(response, body)
    status = f"responds {response.status} {response.reason}"
    is_same = line.status == response.status
    if is_same and all(one.is_same for one in compared):
        return []
    named = {name.lower() for name in line.headers}
    rest = [f"    {name}: {value}" for name, value in response.headers if name.lower() not in named]
    head = [f"  {status}"] if is_same else _differ([f"responds {line.status}"], [status])
    return [*head, *_signed(compared), *(f"  {text}" for text in [*rest, *show_body(body)])]


def _signed(compared: list[Compared]) -> list[str]:
    found = []
    for one in compared:
        if one.is_same:
            found.append(f"      {one.name}: {one.came}")
        else:
            found += [f"-     {one.name}: {one.expected}", f"+     {one.name}: {one.came}"]
    return found


def _differ(expected: list[str], came: list[str]) -> list[str]:
    return [*(f"- {text}" for text in expected), *(f"+ {text}" for text in came)]


def _report(number: int, said: list[str], difference: list[str]) -> str:
    head = f"the dialogue differs at line {number} (- expected, + actual)"
    return "\n".join([head, "", *(f"    {text}" for text in said), *(f"  {text}" for text in difference)])
