"""A request's body -> photos as bytes, in memory and within limits. No file is written; no name that a client gives is used."""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import python_multipart
from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect, Request

from headstart.files import human_bytes
from headstart.serve.refusals import Refused
from headstart.serve.settings import Settings

FIELD = "photos"
_SLOW_BYTES = 2**20  # from here on a body is taken apart in a thread
_HOW = "send one photo as it is (image/jpeg, ...), several as multipart/form-data, or base64 in application/json"
_JSON_FORM = '{"photos": ["<base64>", ...]}'


class Held:
    """How many bytes of bodies are in memory, of all requests together."""

    def __init__(self, most: int) -> None:
        self.n_bytes = 0
        self._most = most

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """For one request; given back at its end."""
        room = Room(self)
        try:
            yield room
        finally:
            self.n_bytes -= room.n_bytes

    def has_room(self, n_bytes: int) -> bool:
        return self.n_bytes + n_bytes <= self._most


class Room:
    """What one request holds."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Raises: Refused: 429, the server's bodies are too many."""
        if not self._held.has_room(n_bytes):
            raise Refused(429, "the server is busy with other photos", hint="try again in 1 s", headers={"Retry-After": "1"})
        self.n_bytes += n_bytes
        self._held.n_bytes += n_bytes


async def photos_of(request: Request, room: Room, settings: Settings) -> list[bytes]:
    """The photos in a request's body, 1 to `settings.max_photos`.

    Raises: Refused: 400 or 422 (no photos, too many, or not in a form that is read), 408 (too slow), 413 (too large), 415 (another kind).
    """
    kind, options = python_multipart.multipart.parse_options_header(request.headers.get("content-type"))
    body = await _read(request, room, settings)
    arguments = body, kind.decode("latin-1"), options.get(b"boundary", b""), settings.max_photos
    photos = _taken_apart(*arguments) if len(body) < _SLOW_BYTES else await asyncio.to_thread(_taken_apart, *arguments)
    if not photos:
        raise Refused(422, "expected at least one photo, found none", hint=_HOW)
    return photos


async def _read(request: Request, room: Room, settings: Settings) -> bytes:
    too_large = Refused(
        413,
        f"expected a body of at most {human_bytes(settings.max_bytes)}",
        hint="send fewer photos at a time, or smaller ones",
        headers={"Connection": "close"},
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > settings.max_bytes:
        raise too_large
    parts = []
    try:
        async with asyncio.timeout(settings.timeout_s):
            async for part in request.stream():
                room.add(len(part))
                if room.n_bytes > settings.max_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        hint = {"Connection": "close"}
        raise Refused(408, f"the body did not arrive within {settings.timeout_s:g} s", hint="send it faster", headers=hint) from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the body did") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _taken_apart(body: bytes, kind: str, boundary: bytes, most: int) -> list[bytes]:
    if kind == "application/json":
        return _of_json(body, most)
    if kind == "multipart/form-data":
        return _of_form(body, boundary, most)
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        return [body] if body else []
    raise Refused(415, f"expected photos, found a body of {kind[:60]!r}", hint=_HOW)


def _too_many(most: int, found: int) -> Refused:
    return Refused(422, f"expected at most {most} photos in a request, found {found}", hint="send several requests")


def _of_json(body: bytes, most: int) -> list[bytes]:
    try:
        values = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {str(error)[:100]}", hint=f"expected {_JSON_FORM}") from None
    if not isinstance(values, dict) or values.keys() != {FIELD} or not isinstance(values[FIELD], list):
        raise Refused(422, "expected an object with a list of photos and nothing else", hint=f"expected {_JSON_FORM}")
    if len(values[FIELD]) > most:
        raise _too_many(most, len(values[FIELD]))
    return [_of_base64(value, index) for index, value in enumerate(values[FIELD])]


def _of_base64(value: Any, index: int) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
        found = type(value).__name__
    except (binascii.Error, ValueError) as error:
        found = str(error)[:100]
    raise Refused(422, f"expected photo {index} in base64, found: {found}", hint="plain base64, without a data: prefix or line breaks")


def _of_form(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    if not boundary:
        raise Refused(400, "the form has no boundary in its content type", hint="let your HTTP library set the content type")
    form = _Form(most, lambda: _too_many(most, body.count(b"\r\n--" + boundary)))  # each part ends with one
    try:
        parser = python_multipart.MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form is damaged: {str(error)[:100]}", hint="let your HTTP library make the form") from None
    if not form.complete:
        raise Refused(400, "the form ends before its last boundary", hint="let your HTTP library make the form")
    return form.photos


class _Form:
    """Collects the parts of a form. A part's file name is read past: it is the client's, and nothing here needs one."""

    def __init__(self, most: int, too_many: Callable[[], Refused]) -> None:
        """Args: most: parts; at the next, the form is read no further and `too_many()` is raised."""
        self.photos: list[bytes] = []
        self._most, self._too_many = most, too_many
        self.complete = False
        self._header = self._value = b""
        self._field = ""
        self._pieces: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.photos) == self._most:
            raise self._too_many()
        self._header, self._value, self._field, self._pieces = b"", b"", "", []

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = python_multipart.multipart.parse_options_header(self._value.decode("latin-1"))
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        if self._field != FIELD:
            raise Refused(422, f"expected form fields called '{FIELD}', found {self._field[:60]!r}", hint=f"curl -F {FIELD}=@cat.jpg ...")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        self.photos.append(b"".join(self._pieces))

    def _finish(self) -> None:
        self.complete = True
