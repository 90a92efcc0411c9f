"""What a server says no with: a status, a reason in words, and what to do about it."""

import json
from typing import Any

from starlette.responses import Response


class Refused(Exception):  # noqa: N818 - an answer to a request, not a failure of the server
    """A request that is not answered with a prediction."""

    def __init__(self, status: int, error: str, *, hint: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint
        self.headers = {} if headers is None else headers

    def response(self) -> Response:
        return json_response({"error": self.error, "hint": self.hint}, self.status, self.headers)


def busy(retry_after_s: int) -> Refused:
    """The server holds as many photos as it may."""
    return Refused(429, "the server is busy", hint=f"try again in {retry_after_s} s", headers={"Retry-After": str(retry_after_s)})


def too_many_requests(retry_after_s: int) -> Refused:
    """The server answers as many requests as it may."""
    hint = f"try again in {retry_after_s} s"
    return Refused(503, "too many requests at the same time", hint=hint, headers={"Retry-After": str(retry_after_s)})


def json_response(values: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """ASCII, so that labels with undecodable parts travel as escapes."""
    return Response(json.dumps(values, allow_nan=False), status, headers, "application/json")
