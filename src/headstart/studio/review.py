"""Routes about labels: photos where label and answer disagree, one click to fix one, one to take it back."""

import csv
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse

from headstart.studio.context import TheProject, page
from headstart.studio.jobs import Job
from headstart.studio.labels import Said
from headstart.studio.project import Project, Shown
from headstart.studio.results import class_ids, doubts

MOST = 60  # on the page at once
MOST_HISTORY = 30

routes = APIRouter()


@routes.get("/p/{project_id}/labels")
def labels(request: Request, project: TheProject) -> HTMLResponse:
    project.look()
    job = project.newest("train", "solve")
    said = project.labels.current
    open_doubts = [] if job is None else [each for each in doubts(project, job) if each.photo.path not in said]
    return page(
        request,
        "labels.html",
        project,
        tab="labels",
        job=job,
        doubts=open_doubts[:MOST],
        n_doubts=len(open_doubts),
        classes=class_ids(project),
        history=[(each, _shown(project, each)) for each in project.labels.history[:MOST_HISTORY]],
        n_history=len(project.labels.history),
        **pending(project),
    )


@routes.post("/p/{project_id}/labels")
def say(
    request: Request,
    project: TheProject,
    photo: Annotated[str, Form()],
    to: Annotated[str, Form()],
) -> HTMLResponse:
    """`to`: the identifier of a class, or `out` to leave the photo out. Answers with what takes the card's place."""
    shown = project.photo(photo)
    label = None if to == "out" else project.class_called(to)
    if shown is None or (label is None and to != "out"):
        raise HTTPException(404, "There is no such photo or class here.")
    said = project.labels.say(shown.path, shown.label, label)
    return page(request, "decided.html", project, said=said, photo=shown, **pending(project))


@routes.post("/p/{project_id}/labels/{n}/undo")
def undo(request: Request, project: TheProject, n: int) -> HTMLResponse:
    """Take a word back. Answers with the card as it was."""
    said = project.labels.undo(n)
    if said is None:
        raise HTTPException(404, "This was taken back already.")
    job = project.newest("train", "solve")
    again = [] if job is None else [each for each in doubts(project, job) if each.photo.path == said.path]
    return page(
        request,
        "undone.html",
        project,
        said=said,
        doubt=again[0] if again and said.path not in project.labels.current else None,
        classes=class_ids(project),
        **pending(project),
    )


def pending(project: Project) -> dict[str, Any]:
    """How many labels are other than those that the newest classifier learned from, and the last that was tried on them."""
    changes = dict(project.labels.changes())
    newest = next((job for job in project.jobs.jobs if job.is_training and (job.is_open or project.has(job))), None)
    known = {} if newest is None else _learned(project, newest)
    n = sum(changes.get(path, "") != known.get(path, "") for path in changes.keys() | known.keys())
    solved = next((job for job in project.jobs.jobs if job.kind == "solve"), None)
    return {"n_pending": n, "n_changes": len(changes), "solved": solved if solved is not None and project.has(solved) else None}


def _learned(project: Project, job: Job) -> dict[str, str | None]:
    """The changes that a job went by."""
    found: dict[str, str | None] = {}
    for name in ("corrections.csv", "left-out.csv"):
        file = project.jobs.input_file(job.id, name)
        if file.is_file():
            with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
                found |= {row["path"]: row.get("label") for row in csv.DictReader(opened)}
    return found


def _shown(project: Project, said: Said) -> Shown | None:
    return next((photo for photo in project.listing.photos if photo.path == said.path), None)
