"""The training loop: resumable at any step, one row of log.csv per epoch, averaged weights for the export."""

import contextlib
import csv
import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from pretrain.augment import augmented, draw_mirror, normalised, resized
from pretrain.files import replaced, save_tensors, with_prefix
from pretrain.muon import Muon
from pretrain.parts import Parts
from pretrain.photos import Photos
from pretrain.products import with_products
from pretrain.recipe import Recipe
from pretrain.rounding import levels_of, rounded
from pretrain.student import Batch, Student
from pretrain.teacher import Classifier, Lessons
from pretrain.threads import share
from pretrain.views import jittered, show

COLUMNS = ("epoch", "progress", "px", "rate", "train_loss", "val_loss", "val_accuracy", "images_per_s", "seconds")


@dataclasses.dataclass(frozen=True)
class Course:
    """All lessons, source by source, and the classifier of the teacher that gave them."""

    lessons: tuple[Lessons, ...]
    classifier: Classifier

    @property
    def n_rows(self) -> int:
        return sum(len(lessons.source) for lessons in self.lessons)


@dataclasses.dataclass
class Tally:
    """What an epoch has added up so far; part of the checkpoint."""

    loss: float = 0.0
    n: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class State:
    """Everything a run needs to go on: saved as one safetensors file, tensors beside a JSON header."""

    recipe: Recipe
    student: Student
    averaged: dict[str, torch.Tensor]
    optimizer: Muon
    levels: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    """Of the tensors that are rounded in training, from the step on in which that begins."""
    step: int = 0
    spent_s: float = 0.0
    tally: Tally = dataclasses.field(default_factory=Tally)
    log: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(
    photos: Photos, course: Course, work: Path, recipe: Recipe, *, start: Path | None = None, stop_after_steps: int | None = None
) -> State:
    """Train until the recipe's end, continuing from `work/checkpoint.safetensors` if it is there.

    Without a time budget a run that was killed and continued ends with the weights of one that was not: the order of the photos and
    every random view follow from the seed and the step alone.

    Args: start: checkpoint of an earlier training of the same network, whose averaged weights this one begins with (`recipe.start` is
        its hash). stop_after_steps: leave after so many steps of this call, as a killed process would (for tests).
    Returns: the state at the end; also on disk.
    Raises: ValueError: the checkpoint is of another recipe. FloatingPointError: the loss is no number any more.
    """
    state = fresh(recipe, len(photos.synsets), course)
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists():
        load(checkpoint, state)
        _say(f"continuing at step {state.step}, {state.spent_s:.0f} s spent")
    elif start is not None:
        begin_with(start, state)
    steps_per_epoch = max(1, course.n_rows // recipe.batch_size)
    saved_s, first = state.spent_s, state.step
    parts = Parts(state.student, recipe.parts, recipe.losses)
    while (progress := recipe.progress(state.step, steps_per_epoch, state.spent_s)) < 1.0:
        if stop_after_steps is not None and state.step - first >= stop_after_steps:
            return state
        _one_step(state, parts, course, progress, steps_per_epoch)
        if state.step % steps_per_epoch == 0:
            _close_epoch(state, photos, steps_per_epoch, work)
        if state.step % steps_per_epoch == 0 or state.spent_s - saved_s > recipe.checkpoint_s:
            save(checkpoint, state)
            saved_s = state.spent_s
    if state.tally.n:
        _close_epoch(state, photos, steps_per_epoch, work)
    save(checkpoint, state)
    return state


def fresh(recipe: Recipe, n_classes: int, course: Course) -> State:
    """The state before the first step."""
    many = torch.from_numpy(course.lessons[0].features[: len(course.lessons[0].source)]).float()
    student = Student(with_products(recipe.network(n_classes)), course.classifier, many)
    optimizer = Muon(
        [p for p in student.parameters() if p.ndim == 4],
        [p for p in student.parameters() if p.ndim != 4],
        lr=recipe.rate,
        other_lr=recipe.other_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        threads=recipe.parts,
    )
    averaged = {name: value.detach().clone() for name, value in student.network.state_dict().items()}
    return State(recipe=recipe, student=student, averaged=averaged, optimizer=optimizer)


def _one_step(state: State, parts: Parts, course: Course, progress: float, steps_per_epoch: int) -> None:
    started = time.monotonic()
    recipe = state.recipe
    epoch, position = divmod(state.step, steps_per_epoch)
    order = _order(course.n_rows, recipe.seed * 100_003 + epoch)
    rows = order[position * recipe.batch_size : (position + 1) * recipe.batch_size].numpy()

    def draw(part: int) -> Batch:
        rng = torch.Generator().manual_seed((recipe.seed + 1) * 10_000_019 + state.step * recipe.parts + part)
        return draw_batch(course, rows[part :: recipe.parts], recipe.px_at(progress), recipe.jitter, rng)

    state.optimizer.scale(recipe.rate_at(progress))
    if progress >= recipe.rounded_from and not state.levels:
        large = {name: value for name, value in state.averaged.items() if value.ndim > 1 and value.numel() >= recipe.large}
        state.levels = {name: levels_of(value, recipe.bits_of(value)) for name, value in large.items()}
    with _rounded(state, parts):
        sums = parts.gradients(draw)
    if not math.isfinite(sums.loss):
        raise FloatingPointError(f"expected a finite loss, found {sums.loss} at step {state.step}; the last checkpoint is still good")
    state.optimizer.step()
    state.step += 1
    _average(state, parts)

    seconds = time.monotonic() - started
    state.spent_s += seconds
    tally = state.tally
    state.tally = Tally(tally.loss + sums.loss, tally.n + sums.n, tally.seconds + seconds)


def draw_batch(course: Course, rows: npt.NDArray[np.int64], px: int, jitter: float, rng: torch.Generator) -> Batch:
    """One view of each row, drawn at random, as the student is to see it at `px`. Rows count through all sources."""
    parts, first = [], 0
    for lessons in course.lessons:
        own = rows[(rows >= first) & (rows < first + len(lessons.source))] - first
        first += len(lessons.source)
        if len(own):
            parts.append(_draw(lessons, own, px, jitter, rng))
    batch = Batch(*(torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Batch)))
    return dataclasses.replace(batch, x_nchw=augmented(batch.x_nchw, rng))


def _draw(lessons: Lessons, rows: npt.NDArray[np.int64], px: int, jitter: float, rng: torch.Generator) -> Batch:
    source = lessons.source
    chosen = rows + len(source) * torch.randint(lessons.n_views, (len(rows),), generator=rng).numpy()
    views = lessons.views[chosen]
    if jitter:
        moved = (jittered(torch.from_numpy(boxes), jitter, rng).numpy() for boxes in (views.boxes, views.other_boxes))
        views = dataclasses.replace(views, **dict(zip(("boxes", "other_boxes"), moved, strict=True)))
    return Batch(
        show(source.pixels, views, px, mode="bilinear", mirror=draw_mirror(len(rows), rng)),
        torch.from_numpy(source.labels[views.photos]),
        torch.from_numpy(source.labels[views.others]),
        torch.from_numpy(views.patched),
        torch.from_numpy(lessons.features[chosen]).float(),
    )


@functools.lru_cache(maxsize=1)
def _order(n: int, seed: int) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def _rounded(state: State, parts: Parts) -> Iterator[None]:
    """Inside, the kernels that have levels are rounded to them."""
    parameters = dict(state.student.network.named_parameters())
    exact = {name: torch.empty_like(parameters[name]) for name in state.levels}

    def to_levels(name: str) -> None:
        exact[name].copy_(parameters[name])
        parameters[name].copy_(rounded(parameters[name], state.levels[name]))

    share(parts.pool, to_levels, exact)
    try:
        yield
    finally:
        share(parts.pool, lambda name: parameters[name].copy_(exact[name]), exact)


def _average(state: State, parts: Parts) -> None:
    decay = min(state.recipe.ema_decay, (1 + state.step) / (10 + state.step))

    def follow(entry: tuple[str, torch.Tensor]) -> None:
        name, value = entry
        if value.is_floating_point():
            state.averaged[name].lerp_(value, 1 - decay)
        else:
            state.averaged[name].copy_(value)

    share(parts.pool, follow, state.student.network.state_dict().items())


def _close_epoch(state: State, photos: Photos, steps_per_epoch: int, work: Path) -> None:
    """Read held-out photos with the averaged weights, rounded if training rounds; add a row to the log, start the next tally."""
    recipe, tally = state.recipe, state.tally
    network = recipe.network(len(photos.synsets))
    network.load_state_dict(state.averaged | {name: rounded(state.averaged[name], levels) for name, levels in state.levels.items()})
    val_loss, val_accuracy = held_out(network, photos, recipe.val_px, step=recipe.val_step)
    progress = recipe.progress(state.step, steps_per_epoch, state.spent_s)
    values = (
        state.step / steps_per_epoch, progress, recipe.px_at(progress), recipe.rate_at(progress),
        tally.loss / tally.n, val_loss, val_accuracy, tally.n / max(tally.seconds, 1e-9), tally.seconds,
    )  # fmt: skip
    state.log.append({column: round(float(value), 5) for column, value in zip(COLUMNS, values, strict=True)})
    state.tally = Tally()
    with replaced(work / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(state.log)
    _say("  ".join(f"{column} {value:g}" for column, value in state.log[-1].items()))


@torch.inference_mode()
def held_out(network: torch.nn.Module, photos: Photos, px: int, *, step: int = 1) -> tuple[float, float]:
    """Mean log loss and accuracy on every `step`-th held-out photo, whole, resized to `px`."""
    network.eval()
    loss = right = 0.0
    rows = photos.val[::step]
    for start in range(0, len(rows), 250):
        chosen = rows[start : start + 250]
        x_nchw = resized(normalised(torch.from_numpy(photos.pixels[chosen])), px)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x_nchw).float()
        labels = torch.from_numpy(photos.labels[chosen])
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
    return loss / len(rows), right / len(rows)


def save(path: Path, state: State) -> None:
    """Write the checkpoint to a temporary name, flush it to disk, and put it in the old one's place."""
    momenta = {
        f"momentum.{name}": state.optimizer.state[p]["momentum"]
        for name, p in state.student.named_parameters()
        if p in state.optimizer.state
    }
    tensors = {f"student.{name}": value for name, value in state.student.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in state.averaged.items()} | momenta
    tensors |= {f"levels.{name}": value for name, value in state.levels.items()}
    header = {"step": state.step, "spent_s": state.spent_s, "tally": dataclasses.asdict(state.tally), "log": state.log}
    save_tensors(path, tensors, {"recipe": state.recipe.to_json(), "state": json.dumps(header)})


def begin_with(path: Path, state: State) -> None:
    """Fill a fresh `state` with the averaged weights of another training's checkpoint, and its map to the teacher's features."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state.student.load_state_dict(with_prefix(tensors, "student."))
    state.student.network.load_state_dict(with_prefix(tensors, "averaged."))
    for name, value in state.student.network.state_dict().items():
        state.averaged[name].copy_(value)


def load(path: Path, state: State) -> None:
    """Fill `state` from a checkpoint of the same recipe.

    Raises: ValueError: the checkpoint was written under another recipe; the text names the fields that differ.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    found = json.loads(Recipe.from_json(header["recipe"]).to_json())  # a field that came later has its default there
    wanted = json.loads(state.recipe.to_json())
    different = [name for name in wanted if wanted[name] != found[name]]
    if different:
        raise ValueError(f"{path} was trained with other values of {', '.join(different)}; give another --out, or the same options")
    state.student.load_state_dict(with_prefix(tensors, "student."))
    for name, value in with_prefix(tensors, "averaged.").items():
        state.averaged[name].copy_(value)
    state.levels = with_prefix(tensors, "levels.")
    parameters = dict(state.student.named_parameters())
    for name, value in with_prefix(tensors, "momentum.").items():
        # Same memory layout as the parameter: the optimizer's arithmetic is then the same as without the interruption.
        state.optimizer.state[parameters[name]]["momentum"] = torch.empty_like(parameters[name]).copy_(value)
    values = json.loads(header["state"])
    state.step, state.spent_s, state.log = values["step"], values["spent_s"], values["log"]
    state.tally = Tally(**values["tally"])


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
