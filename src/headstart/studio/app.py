"""The app and its server: bound to this machine, behind a guard, until Ctrl-C."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from headstart.errors import ConfigError, HeadstartError
from headstart.report.templates import style
from headstart.studio import photos, review, use, working
from headstart.studio.context import HERE, Studio, page
from headstart.studio.guard import Door, Guard
from headstart.studio.words import sentence

PORT = 8700
TRIED_PORTS = 20  # from PORT on, where no port was asked for

log = logging.getLogger("headstart")


def create_app(studio: Studio) -> FastAPI:
    """The routes, and the runner beside them while the app is up. Jobs that an earlier studio left are taken on at once."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        left = [(job, project) for project in studio.shelf.projects.values() for job in project.jobs.recover()]
        for job, project in sorted(left, key=lambda each: each[0].accepted):
            studio.runner.add(project, job)
        running = asyncio.create_task(studio.runner.run())
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio = studio
    for part in (photos, working, review, use):
        app.include_router(part.routes)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    look = str(style(HERE / "static" / "studio.css"))

    @app.get("/look.css")
    def stylesheet() -> Response:
        return Response(look, media_type="text/css", headers={"Cache-Control": "private, no-cache"})

    @app.exception_handler(StarletteHTTPException)
    async def told(request: Request, error: HTTPException) -> Response:
        return _told(request, error.status_code, str(error.detail))

    @app.exception_handler(HeadstartError)
    async def failed(request: Request, error: HeadstartError) -> Response:
        """A full disk, a model that someone changed: what the command line would say."""
        log.warning("%s %s: %s", request.method, request.url.path, error)
        return _told(request, 500, error.message, error.hint or "")

    return app


def _told(request: Request, status: int, detail: str, hint: str = "") -> Response:
    """An error as a page; for scripts as sentences."""
    if request.headers.get("hx-request") or request.method not in ("GET", "POST"):
        return Response(f"{sentence(detail)}. {sentence(hint)}." if hint else detail, status, media_type="text/plain")
    shown: HTMLResponse = page(request, "error.html", status=status, detail=detail, hint=hint)
    shown.status_code = status
    return shown


class Server(uvicorn.Server):
    """Lets open event streams end before the connections are waited for."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._stop()
        super().handle_exit(sig, frame)


def bind(port: int | None) -> socket.socket:
    """A listening socket on this machine alone: on `port`, or on the first free one from 8700 on. Raises: ConfigError: it is taken."""
    tried = range(PORT, PORT + TRIED_PORTS) if port is None else [port]
    for candidate in tried:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", candidate))
            listening.listen(128)
            return listening
        except OSError:
            listening.close()
    raise ConfigError(
        f"port {tried[0]} is taken" if port is not None else f"ports {tried[0]} to {tried[-1]} are taken",
        hint="give another one with --port, or 0 for any free one",
    )


def serve(studio: Studio, listening: socket.socket, opened: Callable[[str], None]) -> None:
    """Run until Ctrl-C or SIGTERM; a job that runs then is continued by the next studio.

    Args: opened: called with the one-time link when the studio answers.
    """
    port = listening.getsockname()[1]
    door = Door(port, tell=lambda text: print(text, flush=True))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        studio.stopping = asyncio.Event()

        def stop() -> None:
            loop.call_soon_threadsafe(studio.stopping.set)
            loop.call_soon_threadsafe(studio.runner.changed)

        app = Guard(create_app(studio), door)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, server_header=False, ws="none")
        server = Server(config, stop)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
        if server.started:
            opened(door.link())
        await serving

    asyncio.run(run())
