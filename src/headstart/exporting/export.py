"""A trained model as ONNX, OpenVINO IR or a torch program, kept only where it answers as the original does.

done = export("runs/a", format="onnx", int8=True, out="for-the-phone")
done.certificate.verdict()
"""

import dataclasses
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.bundle.format import RECORD_FILE, Bundle, load_bundle
from headstart.bundle.own_classes import open_model
from headstart.bundle.predict import open_engine
from headstart.bundle.record import COMPUTED_IN, FP32, INT8, NETWORK_FILE, Golden, Record
from headstart.data.golden import golden_images
from headstart.errors import BundleError, ConfigError, ExportError, did_you_mean, safe_text
from headstart.exporting import compared, photos
from headstart.exporting.certificate import Certificate
from headstart.exporting.certify import Work, certify, sha256_of
from headstart.exporting.compared import MAX_DROP, Bar
from headstart.features import runtime
from headstart.files import cannot_write, names_in_out, write_json
from headstart.progress import waiting

FORMATS = ("onnx", "openvino", "torch")
EXAMPLES = {"onnx": ("example.py", "example.mjs", "example.html"), "openvino": ("example.py",), "torch": ("example.py",)}
"""format to the files beside an export that show how to use it without headstart"""

_ENGINE_OF = {"onnx": "onnxruntime", "openvino": "openvino"}  # that a form is made for, and judged in first


@dataclass(frozen=True)
class Export:
    """An export that was kept: its folder, which `headstart predict` and `serve` read as a MODEL unless it is for torch."""

    folder: Path
    certificate: Certificate


def export(
    model: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    format: str = "onnx",
    int8: bool = False,
    data: str | None = None,
    weights: Path | None = None,
    max_drop: float = MAX_DROP,
    precision: str = "auto",
) -> Export:
    """Write `model` to the folder `out` in another form, test it there, and keep it only if it answers as the original does.

    Args:
        model: a run folder, a bundle, or a backbone's name.
        out: a new or empty folder.
        format: `onnx`, `openvino` or `torch`.
        int8: quantise it, on training photos; not for torch.
        data: labelled photos to calibrate and test on; by default the run's own.
        weights: a backbone's file of weights: with its name, or, for torch, where a run's weights have moved.
        max_drop: points of accuracy (0 to 100): an int8 export is refused where the 95 % interval of its drop lies above.
        precision: `auto`: readers may compute it in bf16 if it passes that bar here, on photos; `fp32`: never; `bf16`: refused if it does
            not pass, or there are no photos.

    Raises:
        ExportError: it does not answer as the original does; the text has the numbers. Nothing is kept.
        HeadstartError: what was expected, what was found and what to do.
    """
    folder = Path(out)
    check(folder, format, int8=int8, max_drop=max_drop, precision=precision)
    run = photos.run_of(model)
    bundle = open_model(os.fspath(model) if run is None else run, None if run is not None else weights)
    _check_source(bundle)
    chosen = photos.choose(bundle, run, data, int8=int8)
    if precision == "bf16" and chosen.test is None:
        raise ConfigError(
            "precision bf16 needs photos to be tested on, and this model comes without its run",
            hint=f"{photos.WORDS}, or leave --precision out: it is then computed in fp32",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder if folder.is_dir() else folder.parent  # a folder that is there may be another disk's, mounted or linked
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=f".{folder.name}.") as temporary:
            draft = Path(temporary) / "export"
            draft.mkdir()
            work = Work(bundle, chosen, draft, format, INT8 if int8 else FP32, Bar(int8, max_drop), precision)
            if format == "torch":
                from headstart.exporting.torch_form import write_torch

                session = write_torch(draft, bundle, model if run is None else run, weights)
                certificate = certify(work, [session])
            else:
                certificate = _bundle(work)
            for name in EXAMPLES[format]:
                shutil.copyfile(Path(__file__).with_name("examples") / name, draft / name)
            _keep(draft, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return Export(folder, certificate)


def _keep(draft: Path, folder: Path) -> None:
    """Put the export in its place: at once where there is no folder yet, else file by file, last the one by which readers know it."""
    if not folder.is_dir():
        os.replace(draft, folder)
        return
    for path in sorted(draft.iterdir(), key=lambda path: path.name == RECORD_FILE):
        os.replace(path, folder / path.name)


def check(folder: Path, format: str, *, int8: bool, max_drop: float = MAX_DROP, precision: str = "auto") -> None:
    """Whether this can be asked for at all, before anything slow. Raises: ConfigError."""
    if format not in FORMATS:
        raise ConfigError(f"expected a format of {', '.join(FORMATS)}, found {format!r}", hint=did_you_mean(format, FORMATS))
    if int8 and format == "torch":
        raise ConfigError("int8 is not for format torch", hint="use --format onnx or openvino")
    if not 0 <= max_drop <= 100:
        raise ConfigError(f"expected a largest drop of 0 to 100 points, found {max_drop:g}")
    if precision not in runtime.PRECISIONS:
        hint = did_you_mean(precision, runtime.PRECISIONS)
        raise ConfigError(f"expected a precision of {', '.join(runtime.PRECISIONS)}, found {precision!r}", hint=hint)
    if precision == "bf16" and ("openvino", "bf16") not in _ways(format):
        raise ConfigError(
            "precision bf16 needs OpenVINO, a format that it runs, and a processor that computes in bf16", hint="leave it out"
        )
    if format == "openvino":
        runtime.resolve("openvino", "fp32")
    needed = {"torch": ["torch"], "onnx": ["onnx"], "openvino": []}[format] + (["nncf"] if int8 else [])
    if absent := [name for name in needed if importlib.util.find_spec(name) is None]:
        extra = "train" if format == "torch" else "export"
        raise ConfigError(f"this export needs {absent[0]}, which is not installed", hint=f"pip install 'headstart[{extra}]'")
    if folder.suffix in (".onnx", ".xml", ".pt2"):
        raise ConfigError(f"expected a folder for the export, found {safe_text(str(folder))}", hint=f"--out {folder.with_suffix('')}")
    if names_in_out(folder, "the export"):
        raise ConfigError(f"{folder} is not empty", hint="choose another --out, or remove that folder first")


def _check_source(bundle: Bundle) -> None:
    if bundle.record.precision != FP32 or bundle.record.network_file != NETWORK_FILE:
        found = f"{bundle.record.precision} in {bundle.record.network_file}"
        raise BundleError(f"expected a model as it was trained, found an export ({found})", hint="export the run that it came from")


def _bundle(work: Work) -> Certificate:
    """The export as a bundle in its draft folder, with its certificate."""
    from headstart.exporting.forms import WRITERS

    calibrate = None
    if work.bar.int8:
        calibrate = [image for batch in compared.batches(work.chosen.calibrate, work.original.preprocessing) for image in batch]
    with waiting("Quantising" if work.bar.int8 else "Writing the network"):
        record = _record(work)
        WRITERS[work.format](work.original.network_file, work.draft, record, calibrate)
    files = {path.name: sha256_of(path) for path in sorted(work.draft.iterdir())}
    record = dataclasses.replace(record, files=files)
    if work.bar.int8:
        file = work.draft / record.network_file
        own = runtime.open_session(file, provider=_ENGINE_OF[work.format], precision="fp32").run(
            golden_images(record.preprocessing.input_px)
        )
        record = dataclasses.replace(record, golden=Golden(record.golden.decoder_digest, own))
    trial = Bundle(work.draft, dataclasses.replace(record, computed_in=COMPUTED_IN))
    try_bf16 = work.precision != "fp32" and work.chosen.test is not None  # golden pictures look like no photo: bf16 is not judged by them
    ways = [way for way in _ways(work.format) if way[1] == "fp32" or try_bf16]
    sessions, notices = _opened(trial, ways, work.precision)
    if try_bf16 and ("openvino", "bf16") not in ways:
        notices.append(
            "bf16 was not tried, since this machine has no OpenVINO or no processor that is fast in it: readers will compute it in fp32 "
            "on every machine; export it on one that has both where bf16 is wanted"
        )
    certificate = certify(work, sessions, notices)
    passed = {way.precision for way in certificate.ways if way.passed}
    computed_in = tuple(one for one in COMPUTED_IN if one in passed)
    write_json(work.draft / RECORD_FILE, dataclasses.replace(record, computed_in=computed_in).to_json())
    load_bundle(work.draft)
    return certificate


def _opened(trial: Bundle, ways: Sequence[tuple[str, str]], precision: str) -> tuple[list[runtime.Session], list[str]]:
    """The export in each way; why bf16 was left out where it already fails on the golden pictures. Raises: ExportError: fp32 does."""
    sessions, lost = [], []
    for way in ways:
        try:
            sessions.append(open_engine(trial, *way))
        except BundleError as error:
            if way[1] == "fp32" or precision == "bf16":
                raise ExportError(f"the export was not kept: {error.message}", hint=error.hint) from error
            lost.append(f"{error.message}: readers will compute it in fp32")
    return sessions, lost


def _record(work: Work) -> Record:
    """bundle.json of the export, so far: its files and, for int8, its golden answers are still to come."""
    old = work.original.record
    made = {"from": dict(old.files)[NETWORK_FILE], "format": work.format, "precision": work.network}
    if work.bar.int8:
        made["calibrated_on"] = str(len(work.chosen.calibrate))
    return dataclasses.replace(old, provenance={**old.provenance, "export": made}, precision=work.network, computed_in=("fp32",))


def _ways(format: str) -> list[tuple[str, str]]:
    """Provider and precision of each way that readers on this machine run a form, the one it is made for first."""
    if format == "torch":
        return []
    has_openvino = runtime.resolve("auto", "fp32")[0] == "openvino"
    precisions = ["fp32", "bf16"] if has_openvino and runtime.bf16_is_fast() else ["fp32"] if has_openvino else []
    return [*([("onnxruntime", "fp32")] if format == "onnx" else []), *(("openvino", precision) for precision in precisions)]
