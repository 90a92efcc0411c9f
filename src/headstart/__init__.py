"""Turn a folder of labelled photos into an image classifier you can trust.

>>> run = headstart.fit("photos/", backbone="resnet50")      # doctest: +SKIP
>>> run.predict("new.jpg")                                   # doctest: +SKIP

`fit` needs the extra `train` (PyTorch, timm); `load` and predicting do not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import BundleError, ConfigError, DataError, ExportError, HeadstartError, StoreError, WeightsError

if TYPE_CHECKING:
    from headstart.bundle.format import Bundle
    from headstart.bundle.predict import Prediction
    from headstart.comparing import RunComparison
    from headstart.exporting.export import Export
    from headstart.probing import Comparison
    from headstart.runs import Run

__all__ = [
    "Bundle",
    "BundleError",
    "Comparison",
    "ConfigError",
    "DataError",
    "Export",
    "ExportError",
    "HeadstartError",
    "Prediction",
    "Run",
    "RunComparison",
    "StoreError",
    "WeightsError",
    "compare",
    "export",
    "fit",
    "load",
    "probe",
]


def fit(
    data: str | Path,
    *,
    out: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    stop: str | None = None,
    recipe: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    budget: str | None = None,
    seed: int | None = None,
    split: str | Path | None = None,
    exclude: str | Path | None = None,
    corrections: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    log: str = "none",
) -> "Run":
    """Train a classifier on labelled photos and test it on photos it never saw.

    Args:
        data: a folder of class folders; of train/val/test folders of them; a .csv with `path,label` (and `split`, `group`);
            a .zip or .tar of these; or a data set's name, `digits` or `cifar10`.
        out: folder for the run: absent, empty, or of an unfinished run to continue. Default: the first free of
            runs/NAME, runs/NAME-2, ...
        backbone: a pretrained network (`headstart backbones` lists them). Default: the small one in this package.
        weights: a file of pretrained weights: safetensors, a torch state dict, or a Keras .h5.
        stop: last stage of the network to use.
        recipe: a recipe's name (photos, the default; quick, best, classic and more) or a TOML file; `set`: single keys of it, such
            as {"head.kind": "dense"}.
        budget: most expected time of planned fine-tuning, such as "10m". Default: "5m".
        seed: seeds the split and everything random. Default: 0.
        split: a split.csv to reuse. exclude: a file that lists photos to leave out. corrections: a CSV with the columns path and label:
            the classes that photos are of, in place of the given ones.
        device: "auto", "cpu", "cuda" or "mps". precision: "auto", "fp32" or "bf16".
        log: "none", "tensorboard" or "mlflow": where epochs are logged, beside history.csv.

    Returns: the finished run: its numbers, its report, its model.
    Raises: HeadstartError: what was expected, what was found and what to do. The same call continues where it stopped.
    """
    from headstart import config, pipeline, runs

    overrides = [f"{key}={_as_toml(value)}" for key, value in (set if set is not None else {}).items()]
    resolved = config.load(
        recipe,
        overrides,
        data=str(data),
        backbone=backbone,
        weights=weights if weights is None else str(weights),
        stop=stop,
        budget=budget,
        seed=seed,
        split=split if split is None else str(split),
        exclude=exclude if exclude is None else str(exclude),
        corrections=corrections if corrections is None else str(corrections),
        device=device,
        precision=precision,
    )
    name = Path(data).name.split(".")[0]
    folder = runs.next_folder(name if name else "run") if out is None else Path(out)
    return pipeline.fit(resolved, folder, log=log)


def probe(
    data: str | Path,
    backbones: Sequence[str] = (),
    *,
    weights: Sequence[str | Path] = (),
    seed: int = 0,
    split: str | Path | None = None,
    exclude: str | Path | None = None,
    corrections: str | Path | None = None,
) -> "Comparison":
    """Compare pretrained networks on one folder of photos: accuracy with its interval, cost, and which is worth it.

    Each sees every photo but the test photos once; accuracy is of heads that had not seen a photo (out of fold).

    Args:
        data, seed, split, exclude, corrections: as of `fit`.
        backbones: names, as `headstart backbones` lists them; what is not at hand is downloaded.
        weights: files that name their network.

    Returns: one record a network, the most accurate first (`probed`), which is worth it (`worth_it`) and why (`advice`).
    Raises: HeadstartError: what was expected, what was found and what to do.
    """
    from headstart import probing

    return probing.probe(data, backbones, weights=weights, seed=seed, split=split, exclude=exclude, corrections=corrections)


def compare(*runs: str | Path, seed: int = 0) -> "RunComparison":
    """Compare finished runs on the test photos they have in common, the others with the first: better, worse, or cannot tell.

    Args:
        runs: two or more run folders. Photos are found by content; what one tested on and another trained on is left out.
        seed: of the bootstrap.

    Returns: each run's figures on the common photos (`runs`), how each but the first compares with the first (`against_first`), the
        same in plain words (`words`), and what was left out (`notices`).
    Raises: HeadstartError: what was expected, what was found and what to do.
    """
    from headstart import comparing

    return comparing.compare(runs, seed=seed)


def export(
    model: str | Path,
    *,
    out: str | Path,
    format: str = "onnx",
    int8: bool = False,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    max_drop: float = 0.5,
    precision: str = "auto",
) -> "Export":
    """Write a trained model in another form, test it there on photos, and keep it only if it answers as the original does.

    Args:
        model: a run folder, a bundle, or a backbone's name.
        out: a new or empty folder. What lands there is read as a model by `load`, unless it is for torch.
        format: "onnx", "openvino" or "torch".
        int8: quantise to 8 bits, calibrated on training photos; not for torch.
        data: labelled photos to calibrate and test on; by default the run's own.
        weights: with a backbone's name, its file of weights.
        max_drop: int8 is refused where the 95 % interval of lost accuracy lies above so many points.
        precision: "auto": readers may compute in bf16 where that passes here; "fp32": never; "bf16": refused unless it passes.

    Returns: its folder and the certificate, which is also in the folder.
    Raises:
        ExportError: it does not answer as the original does; the text has the numbers, and nothing is kept.
        HeadstartError: what was expected, what was found and what to do.
    """
    from headstart.exporting.export import export as run

    return run(
        model,
        out=out,
        format=format,
        int8=int8,
        data=None if data is None else str(data),
        weights=None if weights is None else Path(weights),
        max_drop=max_drop,
        precision=precision,
    )


def load(model: str | Path, *, weights: str | Path | None = None) -> "Bundle":
    """A trained model: a run folder, a bundle, or a backbone's name, which predicts its own classes.

    Args: weights: with a backbone's name, its file of weights.
    Raises:
        BundleError: no model there, or one that is damaged or was changed.
        WeightsError: the backbone's weights are not at hand.
    """
    from headstart.bundle.own_classes import open_model

    return open_model(model, None if weights is None else Path(weights))


def _as_toml(value: Any) -> str:
    import json

    return json.dumps(value)  # TOML writes numbers, booleans, strings and lists of these as JSON does


def __getattr__(name: str) -> Any:
    if name == "Run":
        from headstart.runs import Run

        return Run
    if name == "Bundle":
        from headstart.bundle.format import Bundle

        return Bundle
    if name == "Export":
        from headstart.exporting.export import Export

        return Export
    if name == "Comparison":
        from headstart.probing import Comparison

        return Comparison
    if name == "RunComparison":
        from headstart.comparing import RunComparison

        return RunComparison
    if name == "Prediction":
        from headstart.bundle.predict import Prediction

        return Prediction
    raise AttributeError(f"module 'headstart' has no attribute '{name}'")
