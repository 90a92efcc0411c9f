"""Routes about photos: projects, classes, thumbnails, uploads."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Header, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from headstart.data.pixels import UnreadableImage
from headstart.errors import HeadstartError
from headstart.files import human_bytes
from headstart.studio.context import ThePhoto, TheProject, TheStudio, listing_of, page
from headstart.studio.project import UPLOAD_LIMIT_BYTES, Project, RefusedPhoto, Shown, identifier
from headstart.studio.tries import picture

THUMBNAIL_PX, LARGE_PX = 176, 720
SHOWN_AT_ONCE = 24
FEW = 30  # photos of a class, below which a score on it says little

routes = APIRouter()


@routes.get("/")
def shelf(request: Request, studio: TheStudio) -> Response:
    """The projects; where there is but one folder, that."""
    if studio.shelf.home is None:
        return RedirectResponse(f"/p/{next(iter(studio.shelf.projects))}/", status_code=303)
    return page(request, "shelf.html", shelf=studio.shelf)


@routes.post("/projects")
def make_project(request: Request, studio: TheStudio, name: Annotated[str, Form()] = "") -> Response:
    if studio.shelf.home is None:
        raise HTTPException(404, "This studio was opened for one folder.")
    try:
        project = studio.shelf.make(name)
    except HeadstartError as error:
        response = page(request, "shelf.html", shelf=studio.shelf, problem=error, typed=name)
        response.status_code = 422
        return response
    return RedirectResponse(f"/p/{identifier(str(project.folder))[:12]}/", status_code=303)


@routes.get("/p/{project_id}/")
def photos(request: Request, project: TheProject) -> HTMLResponse:
    return _photos_page(request, project)


@routes.post("/p/{project_id}/classes")
def add_class(request: Request, project: TheProject, name: Annotated[str, Form()] = "", accept: Annotated[str, Header()] = "") -> Response:
    """Make a class; the script that drops folders takes JSON, and is content where the class is there already."""
    wants_json = "application/json" in accept
    try:
        label = project.add_class(name)
    except HeadstartError as error:
        known = next((each for each in project.listing.classes if each.casefold() == " ".join(name.split()).casefold()), None)
        if wants_json and known is not None:
            return JSONResponse({"id": identifier(known)})
        if wants_json:
            return JSONResponse({"reason": error.message}, 422)
        response = _photos_page(request, project, problem=error, typed=name)
        response.status_code = 422
        return response
    return JSONResponse({"id": identifier(label)}, 201) if wants_json else RedirectResponse(f"/p/{project_id_of(project)}/", 303)


@routes.get("/p/{project_id}/classes/{class_id}")
def one_class(request: Request, project: TheProject, class_id: str, start: int = -1) -> HTMLResponse:
    """The card of a class; from `start` on, more of its photos alone."""
    project.look()
    label = _label(project, class_id)
    shown = project.listing.classes[label]
    if start < 0:
        return page(request, "class.html", project, label=label, photos=shown, most=SHOWN_AT_ONCE, few=FEW, addable=True)
    return page(request, "more.html", project, label=label, photos=shown, start=max(0, start), most=4 * SHOWN_AT_ONCE)


@routes.put("/p/{project_id}/classes/{class_id}/photos")
async def add_photo(request: Request, project: TheProject, class_id: str, name: str = "") -> JSONResponse:
    """Take a photo, whose bytes are the body; `name` is a wish."""
    content = await body_of(request)
    label = _label(project, class_id)
    try:
        added = await run_in_threadpool(project.add_photo, label, name[:500], content)
    except RefusedPhoto as error:
        return JSONResponse({"reason": error.reason}, 422)
    except HeadstartError as error:
        return JSONResponse({"reason": error.message}, 507)
    return JSONResponse({"id": added.id}, 201)


@routes.get("/p/{project_id}/photos/{photo_id}/small.jpg")
def small(request: Request, project: TheProject, photo: ThePhoto) -> Response:
    return _picture(request, project, photo, THUMBNAIL_PX)


@routes.get("/p/{project_id}/photos/{photo_id}/large.jpg")
def large(request: Request, project: TheProject, photo: ThePhoto) -> Response:
    return _picture(request, project, photo, LARGE_PX)


async def body_of(request: Request, limit: int = UPLOAD_LIMIT_BYTES) -> bytes:
    """The body, if it is not too large: no more than the limit is ever held. Raises: HTTPException 413."""
    parts, n_bytes = [], 0
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise HTTPException(413, f"more than the {human_bytes(limit)} that a photo may have here")
    async for part in request.stream():
        n_bytes += len(part)
        if n_bytes > limit:
            raise HTTPException(413, f"more than the {human_bytes(limit)} that a photo may have here")
        parts.append(part)
    return b"".join(parts)


def project_id_of(project: Project) -> str:
    return identifier(str(project.folder))[:12]


def _label(project: Project, class_id: str) -> str:
    label = project.class_called(class_id)
    if label is None:
        raise HTTPException(404, "There is no such class here.")
    return label


def _photos_page(request: Request, project: Project, **values: object) -> HTMLResponse:
    listing = listing_of(project)
    addable = not listing.is_split and not listing.problem
    ready = sum(len(each) >= 3 for each in listing.classes.values()) >= 2
    return page(
        request, "photos.html", project, tab="", listing=listing, most=SHOWN_AT_ONCE, few=FEW, addable=addable, ready=ready, **values
    )


def _picture(request: Request, project: Project, photo: Shown, shorter_px: int) -> Response:
    """A picture of a photo, which the browser keeps until the file changes."""
    file: Path = project.file(photo)
    try:
        status = file.stat()
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{shorter_px}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(picture(file, shorter_px), media_type="image/jpeg", headers=headers)
    except (UnreadableImage, OSError):
        raise HTTPException(404, "This file cannot be read as a photo.") from None
