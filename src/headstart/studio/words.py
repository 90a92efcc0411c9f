"""The studio's plain words for what commands call by their own, and the stages that a job is shown in."""

from dataclasses import dataclass

from headstart.studio.jobs import Job

_TOLD = {
    "Reading photos": "Reading your photos",
    "Looking at photos": "Looking at light and colour",
    "Trunk pass": "Looking at every photo with the trained network",
    "Storing pixels": "Getting photos ready for fine-tuning",
    "Solving a head": "Learning the classes",
    "Leaving classes out": "Learning what is none of the classes",
    "Computing answers": "Comparing what was learned",
    "Calibrating": "Making the probabilities honest",
    "Testing": "Testing on photos it has never seen",
    "Checking the photos": "Checking labels and duplicates",
    "Trying fewer photos": "Finding out whether more photos would help",
    "Looking for shortcuts": "Looking for shortcuts it might take",
    "Parting what belongs together": "Checking that the test is honest",
    "Explaining mistakes": "Finding out where it looked",
    "Drawing the map": "Drawing a map of your photos",
    "Writing the report": "Writing the report",
}


@dataclass(frozen=True)
class Stage:
    """A part of a job that people can tell apart. steps: descriptions of progress that show it has begun."""

    name: str
    steps: frozenset[str]


_READ = Stage("Read photos", frozenset({"Reading photos"}))
_SEE = Stage("Look at them", frozenset({"Trunk pass", "Looking at photos"}))
_TRAIN = (
    _READ,
    _SEE,
    Stage("Learn", frozenset({"Leaving classes out", "Storing pixels", "Computing answers", "Calibrating"})),
    Stage("Test", frozenset({"Testing"})),
    Stage("Check", frozenset({"Checking the photos", "Trying fewer photos", "Looking for shortcuts"})),
    Stage("Report", frozenset({"Explaining mistakes"})),
)
_EXPLORE = (
    _READ,
    _SEE,
    Stage("Compare", frozenset({"Solving a head", "Parting what belongs together", "Looking for shortcuts", "Trying fewer photos"})),
    Stage("Report", frozenset({"Drawing the map", "Writing the report"})),
)


def stages_of(job: Job) -> tuple[Stage, ...]:
    """What a job goes through, in its order."""
    return _EXPLORE if job.kind == "explore" else _TRAIN


def told(description: str) -> str:
    """A step's description in plain words; its own, where there are none better."""
    if description.startswith("Training"):
        return "Fine-tuning: it looks at the photos again and again"
    return _TOLD.get(description, description)


def sentence(text: str) -> str:
    """`text` as it stands at the beginning of a sentence, and without the full stop that follows."""
    return (text[:1].upper() + text[1:]).rstrip(".")


def time_left(seconds: float | None) -> str:
    """A time for people.

    >>> time_left(4.2), time_left(95), time_left(None)
    ('a few seconds left', 'about 2 minutes left', '')
    """
    if seconds is None:
        return ""
    if seconds < 10:
        return "a few seconds left"
    if seconds < 60:
        return f"about {10 * round(seconds / 10):.0f} seconds left"
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} {'minute' if minutes == 1 else 'minutes'} left"


NAMES = {"explore": "Looking at the photos", "train": "Training", "solve": "Learning from your labels"}


def job_name(job: Job) -> str:
    """What a job is called on a page."""
    return NAMES[job.kind]
