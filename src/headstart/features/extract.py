"""The trunk pass: photos through the frozen layers once, into the store."""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from headstart.backbone.cut import Trunk
from headstart.data import pixels
from headstart.data.augment import augment, canonical
from headstart.data.reading import read_ahead, read_unchanged
from headstart.data.table import Table
from headstart.features import engine
from headstart.features.key import RowKey, Spec
from headstart.features.store import INDEX_ROW_BYTES, Overflow, Rows, Space, Store
from headstart.progress import progress

# Stored pixels keep this much more than the network's input, so that random crops have something to choose from.
PIXELS_OVER_INPUT = 1.15
COMMIT_S = 2.0  # what a kill costs at most, in seconds of work
PIXELS_ASPECT = 4 / 3  # of a photo whose size nobody knows
MIRROR = "mirror"  # in place of a policy: the centre view mirrored; what a network with two test views sees

Pixels = np.ndarray  # uint8 [h, w, 3]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one trunk pass was."""

    n_computed: int
    n_reused: int
    seconds: float
    engine: str
    precision: str
    notice: str | None = None
    """a sentence for the run's record where the engine that was chosen could not do the work"""


@dataclass(frozen=True, kw_only=True)
class Features(Pass):
    """Stored rows of a table's photos at one cut. `rows[i]` belongs to photo i of the table."""

    rows: Rows

    def facts(self) -> Pass:
        """Without the rows, which keep their room in the store for as long as somebody holds them."""
        return Pass(**{name.name: getattr(self, name.name) for name in dataclasses.fields(Pass)})


@dataclass
class Extractor:
    """`extract` for one run: its photos, store and engine, and what was done so far.

    in_turn: where several processes run together, lets the first one through before the others: they find its rows in the store.
    """

    table: Table
    store: Store
    choice: engine.Choice
    passes: list[Pass] = field(default_factory=list)
    in_turn: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self, trunk: Trunk, view: int = 0, policy: str = "none", *, photos: np.ndarray | None = None) -> Features:
        """Rows of all photos of the table, or of those at the indices `photos`, in that order; see `extract`."""
        table = self.table if photos is None else self.table.subset(photos)
        with self.in_turn():
            features = extract(trunk, table, self.store, view=view, policy=policy, choice=self.choice)
        self.passes.append(features.facts())
        return features

    def bytes_of(self, trunk: Trunk, views: int = 1, *, photos: np.ndarray | None = None) -> int:
        """What these rows take in the store; see `bytes_of`."""
        table = self.table if photos is None else self.table.subset(photos)
        return bytes_of(trunk, table, self.store, self.choice, views)


def extract(
    trunk: Trunk,
    table: Table,
    store: Store,
    *,
    view: int = 0,
    policy: str = "none",
    choice: engine.Choice | None = None,
) -> Features:
    """Run the frozen trunk once over the photos of `table` that the store does not hold yet.

    At cut `input` there is nothing to run: the rows are decoded pixels, uint8 [h, w, 3], each in its photo's own shape.

    Args:
        view: 0 for the centre view, 1 and more for seeded augmented copies.
        policy: how augmented copies are made (`data.policy`), or MIRROR; the centre view needs none.
        choice: engine, precision and device; by default the fastest at hand.

    Returns: rows float16 (float32 where float16 would overflow) [n, *trunk.out_shape], row i = photo i.
    Raises:
        StoreError: the rows do not fit the store's budget or the disk; the text gives both sizes.
        DataError: a photo changed or vanished since it was scanned.
    """
    choice = engine.choose() if choice is None else choice
    try:
        return _extract(trunk, table, store, view, policy, choice)
    except engine.CannotExportError:
        features = _extract(trunk, table, store, view, policy, dataclasses.replace(choice, provider="torch"))
        return dataclasses.replace(features, notice=f"{choice.name} cannot run this network; PyTorch did")


def _extract(trunk: Trunk, table: Table, store: Store, view: int, policy: str, choice: engine.Choice) -> Features:
    policy = "none" if view == 0 else policy
    keys: list[RowKey] = [(photo.sha256, view) for photo in table.photos]
    started = time.monotonic()
    spec = spec_of(trunk, choice, policy)
    filled = None
    if not store.overflowed(spec):
        try:
            filled = _fill(trunk, table, store, spec, keys, policy, choice)
        except Overflow:
            store.mark_overflow(spec)
    if filled is None:  # not above: as long as the error is handled, the float16 rows are in use, and their room cannot be had
        filled = _fill(trunk, table, store, spec.with_dtype("float32"), keys, policy, choice)
    space, n_computed = filled
    n_distinct = len(set(keys))
    seconds = time.monotonic() - started
    return Features(
        rows=space.rows(keys),
        n_computed=n_computed,
        n_reused=n_distinct - n_computed,
        seconds=seconds,
        engine=choice.name,
        precision=choice.precision,
    )


def spec_of(trunk: Trunk, choice: engine.Choice, policy: str) -> Spec:
    """Everything but the photo that decides a row's values at this trunk's cut."""
    network, preprocessing = trunk.network, trunk.network.preprocessing
    if trunk.cut == "input":  # no network has touched these rows: all networks of this input size share them
        return Spec(
            decoder=pixels.DECODER,
            preprocessing={"shorter_px": _stored_px(preprocessing)},
            network="",
            weights_sha256="",
            cut="input",
            stop=None,
            view_policy="none",
            dtype="uint8",
            engine="",
            precision="",
            row_shape=(None, None, 3),
        )
    return Spec(
        decoder=pixels.DECODER,
        preprocessing=preprocessing.to_json(),
        network=network.name,
        weights_sha256=network.weights_sha256,
        cut=trunk.cut,
        stop=network.stop,
        view_policy=policy if policy == MIRROR else canonical(policy),
        dtype="float16",
        engine=choice.name,
        precision=choice.precision,
        row_shape=trunk.out_shape,
        network_args=dict(network.record.model_args),
    )


def bytes_of(trunk: Trunk, table: Table, store: Store, choice: engine.Choice, views: int = 1) -> int:
    """What `views` rows of every photo of `table` take in the store at this trunk's cut, whether they are there already or not."""
    distinct = {photo.sha256: i for i, photo in enumerate(table.photos)}
    spec = spec_of(trunk, choice, "none")
    if store.overflowed(spec):
        spec = spec.with_dtype("float32")
    if spec.row_bytes is None:
        rows = _pixel_bytes(table, distinct.values(), _stored_px(trunk.network.preprocessing))
    else:
        rows = len(distinct) * spec.row_bytes
    return views * (rows + len(distinct) * INDEX_ROW_BYTES)


def _pixel_bytes(table: Table, positions: Iterable[int], stored_px: int) -> int:
    """What these photos take as stored pixels: each in its own size, its shorter side scaled down to `stored_px`."""
    total = 0.0
    for position in positions:
        photo = table.photos[position]
        shorter, longer = sorted((photo.width, photo.height))
        if shorter == 0:
            shorter, longer = stored_px, round(PIXELS_ASPECT * stored_px)
        total += 3 * shorter * longer * min(1.0, stored_px / shorter) ** 2
    return round(total)


def _stored_px(preprocessing: pixels.Preprocessing) -> int:
    return round(preprocessing.resize_px * PIXELS_OVER_INPUT)


def _fill(
    trunk: Trunk, table: Table, store: Store, spec: Spec, keys: Sequence[RowKey], policy: str, choice: engine.Choice
) -> tuple[Space, int]:
    """Open the space and compute the rows it lacks. Returns it and how many rows were computed."""
    space = store.space(spec)
    distinct = {key: position for position, key in reversed(list(enumerate(keys)))}  # equal photos are one row
    absent = set(space.missing(keys))
    missing = sorted(position for position in distinct.values() if position in absent)
    if not missing:
        return space, 0
    stored_px = _stored_px(trunk.network.preprocessing)
    store.check_room(spec, len(missing), row_bytes=_pixel_bytes(table, missing, stored_px) // len(missing) if spec.ragged else None)
    outputs: Iterable[tuple[Sequence[int], np.ndarray | list[np.ndarray]]]
    if trunk.cut == "input":
        outputs = _pixel_rows(table, missing, stored_px)
    else:
        outputs = _trunk_rows(trunk, table, missing, keys[0][1], policy, choice)
    with (
        progress("Trunk pass" if trunk.cut != "input" else "Storing pixels", len(missing)) as advance,
        space.writer(commit_s=COMMIT_S) as writer,
    ):
        for positions, rows in outputs:
            writer.add([keys[position] for position in positions], rows)
            advance(len(positions))
    return space, len(missing)


def _trunk_rows(
    trunk: Trunk, table: Table, positions: Sequence[int], view: int, policy: str, choice: engine.Choice
) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    preprocessing = trunk.network.preprocessing

    def read(position: int) -> Pixels:
        photo = table.photos[position]
        source = read_unchanged(table.file(position), photo.sha256)
        if view == 0:
            return pixels.load(source, preprocessing)
        if policy == MIRROR:
            return np.ascontiguousarray(pixels.load(source, preprocessing)[:, ::-1])
        shorter_px = _stored_px(preprocessing)
        image = pixels.shrink(pixels.decode(source, shorter_px=shorter_px), shorter_px)
        return augment(image, photo.sha256, policy, view, preprocessing)

    session = engine.open_trunk(trunk, choice)
    size = session.batch_size
    images = read_ahead(read, positions, threads=_threads(), ahead=4 * size)
    batches = (np.stack(some) for some in _grouped(images, size))
    return zip(_grouped(positions, size), session.map(batches), strict=True)


def _pixel_rows(table: Table, positions: Sequence[int], shorter_px: int) -> Iterator[tuple[Sequence[int], list[np.ndarray]]]:
    def read(position: int) -> Pixels:
        source = read_unchanged(table.file(position), table.photos[position].sha256)
        return pixels.shrink(pixels.decode(source, shorter_px=shorter_px), shorter_px)

    images = read_ahead(read, positions, threads=_threads(), ahead=128)
    return zip(_grouped(positions, 32), _grouped(images, 32), strict=True)


def _grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


def _threads() -> int:
    count = os.cpu_count()
    return 2 if count is None else min(count, 16)
