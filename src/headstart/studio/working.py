"""Routes about long work: jobs are accepted, followed, cancelled, continued; what came of them is shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse

from headstart.explore.words import findings
from headstart.studio.context import Studio, TheJob, TheProject, TheStudio, page, render, work_of
from headstart.studio.guard import REPORT_POLICY
from headstart.studio.jobs import Job, now
from headstart.studio.photos import project_id_of
from headstart.studio.project import Project
from headstart.studio.results import read_result, same_test, split_for, standing

EVERY_S = 0.15  # between two looks at how far it is
HEARTBEAT_S = 15.0
RECIPES = {"quick": {"recipe": "quick"}, "thorough": {"recipe": "photos", "budget": "5m"}}

routes = APIRouter()


@routes.get("/p/{project_id}/check")
def check(request: Request, project: TheProject) -> HTMLResponse:
    """What looking at the photos found."""
    job = project.newest("explore")
    facts = None if job is None else _read(project.out(job) / "explore.json")
    found = [] if facts is None else findings(facts)
    return page(request, "check.html", project, tab="check", job=job, facts=facts, findings=found)


@routes.get("/p/{project_id}/train")
def train(request: Request, project: TheProject) -> HTMLResponse:
    listing = project.look()
    n_enough = sum(len(photos) >= 3 for photos in listing.classes.values())
    jobs = [job for job in project.jobs.jobs if job.is_training]
    results = {job.id: standing(project.out(job)) for job in jobs if project.has(job)}
    return page(request, "train.html", project, tab="train", listing=listing, ready=n_enough >= 2, jobs=jobs, results=results)


@routes.get("/p/{project_id}/result")
def result(request: Request, project: TheProject, run: int | None = None) -> HTMLResponse:
    done = [job for job in project.jobs.jobs if job.is_training and project.has(job)]
    job = next((each for each in done if run is None or each.id == run), None)
    found = None if job is None else read_result(project.out(job))
    before = next((each for each in done if job is not None and each.id < job.id), None)
    earlier = None if before is None else standing(project.out(before))
    same = job is not None and before is not None and same_test(project.out(job), project.out(before))
    return page(request, "result.html", project, tab="result", job=job, result=found, earlier=earlier, same=same, done=done)


@routes.post("/p/{project_id}/jobs")
async def accept(studio: TheStudio, project: TheProject, kind: Annotated[str, Form()], how: Annotated[str, Form()] = "quick") -> Response:
    """Take on a job. The answer comes when it is written down."""
    if kind not in ("explore", "train", "solve") or how not in RECIPES:
        raise HTTPException(422, "There is no such job.")
    job = await asyncio.to_thread(_accepted, studio, project, kind, how)
    if kind == "solve":  # it learns from all labels that were fixed: what still learns from fewer is not worth waiting for
        for other in project.jobs.jobs:
            if other.kind == "solve" and other.is_open and other.id != job.id:
                await studio.runner.cancel(project, other)
    studio.runner.add(project, job)
    tab = {"explore": "check", "train": "train", "solve": "labels"}[kind]
    return RedirectResponse(f"/p/{project_id_of(project)}/{tab}", 303)


@routes.post("/p/{project_id}/jobs/{job_id}/cancel")
async def cancel(studio: TheStudio, project: TheProject, job: TheJob, back: Annotated[str, Form()] = "train") -> Response:
    if job.is_open:
        await studio.runner.cancel(project, job)
    return _back(project, back)


@routes.post("/p/{project_id}/jobs/{job_id}/continue")
async def go_on(studio: TheStudio, project: TheProject, job: TheJob, back: Annotated[str, Form()] = "train") -> Response:
    """Take a job up again that was cancelled or has failed: it goes on where it was."""
    if job.state in ("cancelled", "failed"):
        studio.runner.add(project, project.jobs.change(job, state="queued", attempts=0, error="", hint="", ended="", accepted=now()))
    return _back(project, back)


@routes.get("/p/{project_id}/jobs/{job_id}/report")
def report(project: TheProject, job: TheJob) -> Response:
    """The report of a run or an exploration, a page of its own."""
    file = project.out(job) / "report.html"
    if job.state != "done" or not file.is_file():
        raise HTTPException(404, "This job has no report.")
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@routes.get("/p/{project_id}/events")
async def events(studio: TheStudio, project: TheProject) -> Response:
    """How work goes on, as server-sent events."""
    return StreamingResponse(_events(studio, project), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(studio: Studio, project: Project) -> AsyncIterator[str]:
    """`work`: the strip on top, where a job or a stage begins or ends. `step`: the bar in it. `stage`: a sentence for screen readers.
    `finished`: a job ended; pages show what came of it."""
    sent: dict[str, str] = {}
    ended = _ended(project)
    with studio.runner.watched() as changed:
        while not studio.stopping.is_set():
            changed.clear()
            if (now_ended := _ended(project)) != ended:
                ended = now_ended
                yield _event("finished", "")
            values = {**work_of(studio, project), "base": f"/p/{project_id_of(project)}", "project": project}
            for name, key in (("work", _frame(values)), ("step", None), ("stage", None)):
                text = render(f"{name}.html", **values)
                if (key := text if key is None else key) != sent.get(name):
                    sent[name] = key
                    yield _event(name, text)
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield ": still here\n\n"
            await asyncio.sleep(EVERY_S)


def _frame(values: dict[str, Any]) -> str:
    """What the strip on top shows beside the step: it is replaced only when this changes, so that its button keeps the focus."""
    live, last = values["live"], values["last"]
    shown = None if live is None else (live.job.id, live.at, live.cancelling, live.answer)
    ended = None if last is None else (last.id, last.state, last.ended)
    return repr((shown, [job.id for job in values["queued"]], values["elsewhere"], values["packing"], ended))


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines()) or "data:\n"
    return f"event: {name}\n{lines}\n"


def _ended(project: Project) -> list[tuple[int, str]]:
    return [(job.id, job.ended) for job in project.jobs.jobs if not job.is_open]


def _accepted(studio: Studio, project: Project, kind: Any, how: str) -> Job:
    """Write a job down with what it goes by as it is now: labels that change later are another job's."""
    job_id = project.jobs.number()
    files = [project.jobs.input_file(job_id, name) for name in ("corrections.csv", "left-out.csv")]
    corrections, left_out = project.labels.write_files(*files)
    asked: dict[str, Any] = dict(studio.network)
    if kind != "explore":
        asked |= RECIPES[how if kind == "train" else "quick"]
    asked |= {name: str(file) for name, file in (("corrections", corrections), ("exclude", left_out)) if file is not None}
    if kind == "solve" and (split := split_for(project, job_id)) is not None:
        asked["split"] = str(split)
    return project.jobs.accept(job_id, kind, asked)


def _back(project: Project, tab: str) -> Response:
    return RedirectResponse(f"/p/{project_id_of(project)}/{tab if tab in ('check', 'train', 'labels') else 'train'}", 303)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
