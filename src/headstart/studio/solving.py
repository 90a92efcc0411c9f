"""What a head would say on labels that changed, in about a second: everything but the solve is at hand already.

The run that follows makes a model, scores and a report of it; this is what the person at the page waits for.
"""

import time
from pathlib import Path
from typing import Any

from headstart.backbone import cut, networks, weights
from headstart.config import Config
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table
from headstart.explore.checks import out_of_fold
from headstart.features import engine
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.files import cache_folder
from headstart.train.head import FOLDS, solve_linear


class Solver:
    """Keeps the network between answers: building it takes longer than the solve."""

    def __init__(self) -> None:
        self._network: tuple[tuple[str | None, str | None, str], networks.Network] | None = None

    def answer(self, config: Config) -> dict[str, Any]:
        """How many photos heads get right that had not seen them, on the labels as they are now.

        Returns: accuracy (0 to 1), accuracy_ci95, n: photos of train and val, left out in turn; seconds. Test photos take no part.
        Raises: HeadstartError: as `headstart.fit`.
        """
        started = time.monotonic()
        table = scan(config.data, exclude=_path(config.exclude), corrections=_path(config.corrections))
        table = split_table(table, seed=config.seed) if config.split is None else read_split(table, Path(config.split))
        seen = table.subset(i for i, photo in enumerate(table.photos) if photo.split != "test")
        choice = engine.choose(config.engine, config.device, config.precision)
        rows = extract(cut.Trunk(self._built(config), "head"), seen, Store(cache_folder() / "store"), choice=choice).rows[:]
        head = solve_linear(rows, seen.labels, len(seen.classes), groups=seen.groups, seed=config.seed, folds=FOLDS)
        found = out_of_fold(head.oof_logits, head.oof_index, seen, head.folds)
        scores = {"accuracy": None, "accuracy_ci95": None, "n": 0} if found is None else found.to_json(seen)
        return {**scores, "seconds": round(time.monotonic() - started, 3)}

    def _built(self, config: Config) -> networks.Network:
        file = weights.locate(config.backbone, _path(config.weights), download=True)
        key = (config.backbone, config.weights, file.sha256)
        if self._network is None or self._network[0] != key:
            self._network = key, networks.build(file, stop=config.stop, px=config.px)
        return self._network[1]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
