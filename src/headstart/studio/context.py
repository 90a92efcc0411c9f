"""What every route has at hand: the projects, the runner, the page of a template."""

import asyncio
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse

from headstart.report import words as report_words
from headstart.report.templates import environment
from headstart.studio import words
from headstart.studio.jobs import Job
from headstart.studio.project import Listing, Project, Shown, identifier
from headstart.studio.runner import Runner
from headstart.studio.shelf import Shelf
from headstart.studio.tries import Tries

HERE = Path(__file__).parent

TABS = (("", "Photos"), ("check", "Check"), ("train", "Train"), ("result", "Result"), ("labels", "Labels"), ("use", "Use it"))


@dataclass
class Studio:
    """All of it. network: `backbone` and `weights` as the command line gave them, for every job."""

    shelf: Shelf
    runner: Runner = field(default_factory=Runner)
    tries: Tries = field(default_factory=Tries)
    network: dict[str, str] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def studio_of(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


def project_of(request: Request, project_id: str) -> Project:
    found = studio_of(request).shelf.projects.get(project_id)
    if found is None:
        raise HTTPException(404, "There is no such project here.")
    return found


def photo_of(project: Annotated[Project, Depends(project_of)], photo_id: str) -> Shown:
    found = project.photo(photo_id)
    if found is None:
        raise HTTPException(404, "There is no such photo here.")
    return found


def job_of(project: Annotated[Project, Depends(project_of)], job_id: int) -> Job:
    found = project.jobs.get(job_id)
    if found is None:
        raise HTTPException(404, "There is no such job here.")
    return found


TheStudio = Annotated[Studio, Depends(studio_of)]
TheProject = Annotated[Project, Depends(project_of)]
ThePhoto = Annotated[Shown, Depends(photo_of)]
TheJob = Annotated[Job, Depends(job_of)]


@cache
def templates() -> jinja2.Environment:
    made = environment(HERE / "templates")
    made.filters |= {
        "identifier": identifier,
        "count": report_words.count,
        "time_left": words.time_left,
        "job_name": words.job_name,
        "sentence": words.sentence,
    }
    made.globals |= {"tabs": TABS}
    return made


def render(template: str, **values: Any) -> str:
    """A template's text."""
    return templates().get_template(template).render(**values)


def page(request: Request, template: str, project: Project | None = None, *, tab: str | None = None, **values: Any) -> HTMLResponse:
    """A whole page, or a piece of one, with what all of them show."""
    studio = studio_of(request)
    project_id = "" if project is None else identifier(str(project.folder))[:12]
    base = f"/p/{project_id}"
    several = studio.shelf.home is not None
    more = {} if project is None else work_of(studio, project)
    return HTMLResponse(render(template, project=project, base=base, tab=tab, several=several, **more, **values))


def work_of(studio: Studio, project: Project) -> dict[str, Any]:
    """The job that runs, the jobs that wait and the last one that ended, for the strip on every page."""
    live = studio.runner.live
    jobs = project.jobs.jobs
    return {
        "live": live if live is not None and live.project is project else None,
        "elsewhere": live is not None and live.project is not project,
        "packing": live is None and studio.runner.alone.locked(),
        "queued": [job for job in reversed(jobs) if job.state == "queued"],
        "last": max((job for job in jobs if not job.is_open), key=lambda job: job.ended, default=None),
    }


def listing_of(project: Project) -> Listing:
    """What lies in the folder now: every page looks anew."""
    return project.look()
