"""What came of a run, for the pages: how good it is, what it confuses, which photos it got wrong and which labels it doubts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.assess import photos_of
from headstart.errors import DataError
from headstart.files import atomic_file
from headstart.report import sections, words
from headstart.report.folder import RunFolder, items, number, pair, read_run, texts, whole
from headstart.studio.jobs import Job
from headstart.studio.project import Project, Shown, identifier


@dataclass(frozen=True)
class Standing:
    """How many test photos were right. percent, range: ready text, without the sign."""

    accuracy: float
    interval: tuple[float, float] | None
    n: int
    n_right: int
    percent: str
    range: str


@dataclass(frozen=True)
class Result:
    """A finished run as its page shows it."""

    standing: Standing | None
    labels: list[str]
    cells: list[list[sections.Cell]]
    pairs: list[words.Confusion]
    rows: list[sections.ClassRow]
    notices: list[str]
    command: str
    baseline: str
    more_photos: list[str]


@dataclass(frozen=True)
class Doubt:
    """A photo whose label and answer disagree. why: `test`, it was tested and answered otherwise; `suspect`, a model that had not seen it
    doubts its label. probability: of `likely`, ready text in percent. sure: the same as a number."""

    photo: Shown
    label: str
    likely: str
    probability: str
    sure: float
    why: str


def standing(run: Path) -> Standing | None:
    """How good a run is, from its metrics; None where they cannot be read."""
    try:
        test = read_run(run).test
    except Exception:  # a folder someone removed or changed by hand is no reason for a page to fail
        return None
    return _standing(test)


def same_test(one: Path, other: Path) -> bool:
    """Whether two runs were tested on the same photos, by their content; else their scores say nothing on which is better."""
    try:
        first, second = ({photo.sha256 for photo in photos_of(run) if photo.split == "test"} for run in (one, other))
    except DataError:
        return False
    return first == second


def read_result(run: Path) -> Result:
    """Everything the page of a result shows."""
    folder = read_run(run)
    labels, _ = words.matrix(folder.test)
    curve = folder.checks.get("learning_curve")
    per_class = curve.get("per_class", {}) if isinstance(curve, dict) else {}
    return Result(
        standing=_standing(folder.test),
        labels=labels,
        cells=sections.matrix_cells(folder.test),
        pairs=words.confusions(folder.test)[:6],
        rows=sections.class_rows(folder),
        notices=[*texts(folder.of("notices"))],
        command=str(folder.of("command") or ""),
        baseline=words.percent(number(folder.test.get("baseline_majority"))),
        more_photos=[name for name, row in per_class.items() if isinstance(row, dict) and row.get("verdict") == "more photos help"],
    )


def _standing(test: dict[str, Any]) -> Standing | None:
    accuracy, n = number(test.get("accuracy")), whole(test.get("n"))
    if accuracy is None or not n:
        return None
    interval = pair(test.get("accuracy_ci95"))
    percent = words.percent(accuracy, words.decimals_for(interval))
    return Standing(accuracy, interval, n, words.n_right(test), percent, words.between(interval, " to "))


def doubts(project: Project, job: Job) -> list[Doubt]:
    """Photos to look at after a run, the surest first, each once; those that the folder no longer has are left out."""
    folder = read_run(project.out(job))
    by_path = {photo.path: photo for photo in project.listing.photos}
    found: dict[str, Doubt] = {}
    for each in (*_mistakes(folder, by_path), *_suspects(folder, by_path)):
        found.setdefault(each.photo.path, each)
    return sorted(found.values(), key=lambda each: (-each.sure, each.photo.path))


def _mistakes(folder: RunFolder, by_path: dict[str, Shown]) -> list[Doubt]:
    found = folder.predictions
    if found is None:
        return []
    wrong = [i for i in range(len(found)) if found.labels[i] != found.predicted[i] and found.paths[i] in by_path]
    return [_doubt(by_path[found.paths[i]], found.labels[i], found.predicted[i], float(found.probs[i].max()), "test") for i in wrong]


def _suspects(folder: RunFolder, by_path: dict[str, Shown]) -> list[Doubt]:
    suspects = folder.checks.get("suspects")
    photos = items(suspects, "photos")
    return [
        _doubt(
            by_path[str(each["path"])], str(each["label"]), str(each["likely"]), number(each.get("probability_likely")) or 0.0, "suspect"
        )
        for each in photos
        if str(each.get("path")) in by_path and "label" in each and "likely" in each
    ]


def _doubt(photo: Shown, label: str, likely: str, sure: float, why: str) -> Doubt:
    return Doubt(photo, label, likely, words.percent(sure), sure, why)


def split_for(project: Project, job_id: int) -> Path | None:
    """A copy of the last run's split, by which a head on changed labels is tested on the same photos; None where photos came since."""
    before = project.newest("train", "solve")
    if before is None:
        return None
    folder = read_run(project.out(before))
    photos = photos_of(project.out(before))
    known = {photo.path for photo in photos} | {path for path, _ in folder.omitted}
    gone = {path for path, label in project.labels.changes() if label is None}
    left_out_then = {path for path, reason in folder.omitted if reason.startswith("excluded by")}
    if {photo.path for photo in project.look().photos} - known or left_out_then - gone:
        return None
    copy = project.jobs.input_file(job_id, "split.csv")
    with atomic_file(copy, "wb") as file:
        file.write((project.out(before) / "split.csv").read_bytes())
    return copy


def class_ids(project: Project) -> list[tuple[str, str]]:
    """Identifier and name of each class."""
    return [(identifier(label), label) for label in project.listing.classes]
