"""Routes about using a classifier: photos are tried, the model is taken along."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.concurrency import run_in_threadpool

from headstart.errors import HeadstartError
from headstart.report import words
from headstart.studio.context import TheJob, TheProject, TheStudio, page
from headstart.studio.photos import body_of
from headstart.studio.results import standing
from headstart.studio.taking import packed
from headstart.studio.tries import SHOWN_PX, picture

routes = APIRouter()


@routes.get("/p/{project_id}/use")
def use(request: Request, project: TheProject) -> HTMLResponse:
    job = project.newest("train", "solve")
    return page(request, "use.html", project, tab="use", job=job, standing=None if job is None else standing(project.out(job)))


@routes.post("/p/{project_id}/try")
async def ask(request: Request, studio: TheStudio, project: TheProject) -> HTMLResponse:
    """What the newest classifier says of the photo in the body."""
    content = await body_of(request)
    job = project.newest("train", "solve")
    if job is None:
        raise HTTPException(409, "There is no classifier yet.")
    try:
        tried = await run_in_threadpool(studio.tries.ask, project.out(job), content)
    except HeadstartError as error:
        return page(request, "tried.html", project, tried=None, problem=error.message)
    if tried.answer.reason is not None:
        return page(request, "tried.html", project, tried=None, problem=f"This file was not understood: {tried.answer.reason}.")
    top = [(label, probability, words.percent(probability)) for label, probability in tried.answer.top]
    return page(request, "tried.html", project, tried=tried, top=top, coverage=f"{10 * tried.coverage:g}", problem="")


@routes.get("/p/{project_id}/tried/{tried_id}/photo.jpg")
def tried_photo(studio: TheStudio, project: TheProject, tried_id: str) -> Response:
    tried = studio.tries.get(tried_id)
    if tried is None:
        raise HTTPException(404, "This photo is not remembered any more.")
    return Response(picture(tried.content, SHOWN_PX), media_type="image/jpeg")


@routes.get("/p/{project_id}/tried/{tried_id}/heat.png")
def tried_heat(studio: TheStudio, project: TheProject, tried_id: str) -> Response:
    tried = studio.tries.get(tried_id)
    if tried is None:
        raise HTTPException(404, "This photo is not remembered any more.")
    return Response(studio.tries.heat_map(tried), media_type="image/png")


@routes.get("/p/{project_id}/jobs/{job_id}/model.zip")
async def take(studio: TheStudio, project: TheProject, job: TheJob) -> Response:
    """The classifier as one file. Its certificate states speeds, so it is made while nothing else runs; who asks meanwhile waits for it."""
    if not job.is_training or not project.has(job):
        raise HTTPException(404, "This job has no classifier.")
    async with studio.runner.alone:
        file = await run_in_threadpool(packed, project.out(job), project.own / "exports")
    return FileResponse(file, media_type="application/zip", filename=f"{project.name} classifier.zip")
