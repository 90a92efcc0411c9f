"""The addresses of a server, and what each does."""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from headstart.bundle.predict import Prediction
from headstart.errors import safe_text
from headstart.serve import answers
from headstart.serve.access import Access
from headstart.serve.batching import Batcher, Call
from headstart.serve.bodies import FIELD, Held, Room, photos_of
from headstart.serve.explaining import Explainer
from headstart.serve.metrics import CONTENT_TYPE, Metrics
from headstart.serve.models import Loaded, Models
from headstart.serve.reference import reference_page
from headstart.serve.refusals import Refused, json_response
from headstart.serve.settings import Settings

log = logging.getLogger("headstart.serve")

WATCH_S = 2.0
_PREDICT = "/v1/predict"

ModelName = Annotated[str | None, Query(description="a model's name; by default the first", max_length=100)]
Top = Annotated[int, Query(description="answers a photo", ge=1, le=1000)]
LabelName = Annotated[str | None, Query(description="a label's name or id; by default the most probable one", max_length=1000)]


class Server:
    """One server's parts, together while it runs."""

    def __init__(self, models: Models, settings: Settings, *, watch_s: float = WATCH_S) -> None:
        self.models, self.settings, self.metrics = models, settings, Metrics()
        self.held = Held(settings.max_held_bytes)
        self.stopping = False
        self.batcher: Batcher
        self.explainer: Explainer
        self._watch_s = watch_s
        for one in models.all:
            self.metrics.loaded.labels(one.name, one.version).set(one.loaded)

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """From before the first request until after the last."""
        self.batcher = Batcher(self.settings, self.metrics)
        self.explainer = Explainer(self.settings, lambda: self.batcher.n_waiting)
        self.metrics.watch(lambda: self.batcher.n_waiting, self.settings.queue, lambda: self.held.n_bytes)
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.to_thread(self.batcher.close)

    @property
    def ready(self) -> bool:
        return self.batcher.alive and not self.stopping

    def full(self, path: str) -> Refused | None:
        """The refusal of a photo that there is no room for, before its body is read or anything else is done about it."""
        try:
            if path == _PREDICT:
                self.batcher.check_room()
        except Refused as refused:
            return refused
        return None

    async def reload(self, names: list[str]) -> None:
        """Load these models again, one after the other, beside the requests."""
        for name in names:
            before = self.models.of(name)
            done = await asyncio.to_thread(self.models.reload, name)
            self.metrics.reloads.labels(name, "done" if done else "failed").inc()
            if done:
                with contextlib.suppress(KeyError):  # the same version again
                    self.metrics.loaded.remove(name, before.version)
                now = self.models.of(name)
                self.metrics.loaded.labels(name, now.version).set(now.loaded)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                await self.reload(await asyncio.to_thread(self.models.changed))
            except Exception:  # whatever it is, the running model is better than none
                log.exception("watching failed")

    async def predict(self, request: Request, model: str | None, top: int) -> Response:
        chosen = self.models.of(model)
        with self.held.room() as room:
            photos = await photos_of(request, room, self.settings)
            request.state.facts |= {"model": chosen.name, "photos": len(photos), "bytes": room.n_bytes}
            call = self.batcher.submit(chosen, photos, top)
            del photos
            return _answer(chosen, await self._answered(call, request))

    async def _answered(self, call: Call, request: Request) -> list[Prediction]:
        """Wait for the answer, but not longer than the client does. Raises: Refused: 503, it took too long."""
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((call.answered, gone), timeout=self.settings.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if call.answered.done():
                return call.answered.result()
            if gone.done():
                raise Refused(499, "the client left")
            wait_s = self.batcher.retry_after_s()
            raise Refused(
                503,
                f"no answer within {self.settings.timeout_s:g} s",
                hint=f"try again in {wait_s} s, with fewer or smaller photos",
                headers={"Retry-After": str(wait_s)},
            )
        finally:
            gone.cancel()
            call.given_up = not call.answered.done()
            if call.given_up:
                call.answered.cancel()

    async def explain(self, request: Request, model: str | None, label: str | None) -> Response:
        chosen = self.models.of(model)
        with self.held.room() as room:
            photo = await _one_photo(request, room, self.settings)
            request.state.facts |= {"model": chosen.name, "photos": 1, "bytes": room.n_bytes}
            return json_response(await self.explainer.explain(chosen, photo, label))


def create_app(server: Server) -> ASGIApp:
    """What uvicorn runs."""
    app = FastAPI(
        title="headstart",
        version=importlib.metadata.version("headstart"),
        summary="What is in a photo, by a model of yours",
        docs_url=None,
        redoc_url=None,
        lifespan=server.running,
    )
    _add_errors(app)
    _add_predicting(app, server)
    _add_models(app, server)
    _add_state(app, server)
    _add_pages(app)
    _add_token(app, server)
    return Access(app, server)


def _add_errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.response()

    async def wrong_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return Refused(422, f"{safe_text(where)}: {first['msg']}", hint="see /docs").response()

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers) if error.headers else None
        return Refused(error.status_code, error.detail, hint="see /docs", headers=headers).response()

    async def failed(request: Request, error: Exception) -> Response:
        return Refused(500, "the server failed", hint="its log says how, under this answer's X-Request-ID").response()

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, wrong_query)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, failed)


def _add_predicting(app: FastAPI, server: Server) -> None:
    more = _problems(server, 400, 404, 408, 413, 415, 422, 429)

    @app.post(_PREDICT, response_model=answers.Predictions, responses=more, openapi_extra=_body(server, several=True))
    async def predict(request: Request, model: ModelName = None, top: Top = 5) -> Response:
        """What is in one photo, or in each of several."""
        return await server.predict(request, model, top)

    @app.post("/v1/explain", response_model=answers.HeatMapAnswer, responses=more, openapi_extra=_body(server, several=False))
    async def explain(request: Request, model: ModelName = None, label: LabelName = None) -> Response:
        """Where in a photo an answer comes from. Costs about as much as 160 predictions, and gives way to them."""
        return await server.explain(request, model, label)


def _add_models(app: FastAPI, server: Server) -> None:
    @app.get("/v1/models", response_model=answers.ModelList, responses=_problems(server), openapi_extra=_security(server))
    async def models() -> Response:
        """The models of this server; the first is the one that answers where none is named."""
        found = [{"name": one.name, "version": one.version, "n_labels": len(one.bundle.labels)} for one in server.models.all]
        return json_response({"models": found})

    @app.get("/v1/model", response_model=answers.Model, responses=_problems(server, 404, 422), openapi_extra=_security(server))
    async def model(model: ModelName = None) -> Response:
        """A model's labels, thresholds, preprocessing, origin and card."""
        return json_response(server.models.of(model).to_json())

    @app.get("/metrics", response_class=Response, responses=_metrics_answers(server), openapi_extra=_security(server))
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(server.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_state(app: FastAPI, server: Server) -> None:
    @app.get("/healthz", response_model=answers.State)
    async def healthz() -> Response:
        """Whether the process answers at all."""
        return json_response({"status": "ok"})

    @app.get("/readyz", response_model=answers.State, responses={503: {"model": answers.State, "description": "not ready"}})
    async def readyz() -> Response:
        """Whether it should be sent photos."""
        return json_response({"status": "ready"}) if server.ready else json_response({"status": "not ready"}, 503)


def _add_pages(app: FastAPI) -> None:
    folder = resources.files("headstart.serve") / "page"
    pages = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
    for path, (name, kind) in pages.items():
        app.add_api_route(path, _page((folder / name).read_text(encoding="utf-8"), kind), include_in_schema=False)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(reference_page(app.openapi()), media_type="text/html")


def _add_token(app: FastAPI, server: Server) -> None:
    """Say in the OpenAPI page what kind of token the addresses take."""
    if server.settings.token is not None:
        app.openapi().setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}


def _page(text: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(text, media_type=kind)

    return page


def _answer(model: Loaded, found: list[Prediction]) -> Response:
    """Raises: Refused: 422, none of the photos could be read."""
    reasons = [one.reason for one in found if one.reason is not None]
    if len(reasons) == len(found):
        said = reasons[0] if len(found) == 1 else f"none of {len(found)}: {'; '.join(dict.fromkeys(reasons))}"[:500]
        raise Refused(422, f"the photo cannot be read: {safe_text(said)}", hint="send a whole JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF")
    rows = [{key: value for key, value in one.to_json().items() if key != "path"} for one in found]
    return json_response({"model": model.name, "version": model.version, "predictions": rows})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _one_photo(request: Request, room: Room, settings: Settings) -> bytes:
    photos = await photos_of(request, room, settings)
    if len(photos) != 1:
        raise Refused(422, f"expected one photo, found {len(photos)}", hint="ask about one at a time")
    return photos[0]


_ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mM4oSEHAALKAQ+Hjm7MAAAAAElFTkSuQmCC"

_WORDS = {
    400: "the body is damaged",
    401: "no token, or another",
    404: "no such model or label",
    408: "the body came too slowly",
    413: "more bytes than the server takes",
    415: "a kind of body that is not read",
    422: "no photo that can be read, too many photos, or a wrong parameter",
    429: "busy; Retry-After says when to come again",
    503: "took too long, or too many requests; Retry-After says when to come again",
}


def _problems(server: Server, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers that are no result, for the OpenAPI page."""
    wanted = sorted({*statuses, 503, *((401,) if server.settings.token is not None else ())})
    found: dict[int | str, dict[str, Any]] = {status: {"model": answers.Problem, "description": _WORDS[status]} for status in wanted}
    for status in {429, 503} & set(wanted):
        found[status]["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
    return found


def _metrics_answers(server: Server) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text"}, **_problems(server)}


def _security(server: Server) -> dict[str, Any]:
    return {} if server.settings.token is None else {"security": [{"token": []}]}


def _body(server: Server, *, several: bool) -> dict[str, Any]:
    """What may be sent, in OpenAPI's words."""
    most = server.settings.max_photos if several else 1
    binary, text = {"type": "string", "format": "binary"}, {"type": "string", "format": "byte", "minLength": 4}

    def listed(items: dict[str, Any]) -> dict[str, Any]:
        photos = {"type": "array", "items": items, "minItems": 1, "maxItems": most}
        return {"schema": {"type": "object", "properties": {FIELD: photos}, "required": [FIELD], "additionalProperties": False}}

    raw: dict[str, Any] = {"schema": {**binary, "minLength": 1}}
    content = dict.fromkeys(("image/jpeg", "image/png", "image/webp", "application/octet-stream"), raw)
    content |= {"multipart/form-data": listed(binary), "application/json": {**listed(text), "example": {FIELD: [_ONE_PIXEL]}}}
    return {"requestBody": {"required": True, "content": content}, **_security(server)}
