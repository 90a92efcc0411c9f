"""An export on trial: compared with its original on photos, timed beside it, and certified or refused."""

import datetime
import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.bundle.format import Bundle
from headstart.bundle.predict import open_engine
from headstart.bundle.record import NETWORK_FILE
from headstart.data.golden import check_images, golden_images
from headstart.errors import ExportError
from headstart.exporting import compared, photos, speed
from headstart.exporting.certificate import Certificate, Rates, write
from headstart.exporting.compared import Bar, Way
from headstart.exporting.forms import opset_of
from headstart.features import runtime

_VERSIONS = ("headstart", "onnx", "onnxruntime", "openvino", "nncf", "torch", "numpy", "pillow")


@dataclass(frozen=True)
class Work:
    """What is being exported, and where to. network: `fp32` or `int8`; precision: what was asked of readers."""

    original: Bundle
    chosen: photos.Chosen
    draft: Path
    format: str
    network: str
    bar: Bar
    precision: str


def certify(work: Work, sessions: Sequence[runtime.Session], notices: Sequence[str] = ()) -> Certificate:
    """Compare the export, opened in each way, with its original; time both; write the certificate into the draft.

    Raises: ExportError: it does not answer as the original does; the text has the numbers.
    """
    original = open_engine(work.original, "onnxruntime", "fp32")
    ways, accuracy = _compared(work, original, sessions)
    told = (*notices, *_notices(work, ways))
    refused = tuple(_refusal(way) for way in ways if not way.passed and (way.precision == "fp32" or work.precision == "bf16"))
    rates = () if refused else _rates(work, original, [one for one, way in zip(sessions, ways, strict=True) if way.passed])
    files = {path.name: sha256_of(path) for path in sorted(work.draft.iterdir())}
    certificate = Certificate(
        model=_name_of(work.original),
        format=work.format,
        int8=work.bar.int8,
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        photos=work.chosen.about if work.chosen.test is not None else "golden pictures and noise: no photos were given",
        n_calibrate=len(work.chosen.calibrate),
        ways=tuple(ways),
        original_accuracy=accuracy,
        rates=rates,
        original_bytes=work.original.network_file.stat().st_size,
        export_bytes=sum((work.draft / name).stat().st_size for name in files),
        files=files,
        versions={name: _version(name) for name in _VERSIONS},
        opset=opset_of(work.draft / NETWORK_FILE) if work.format == "onnx" else None,
        notices=told,
        refused=refused,
    )
    if refused:
        hint = "give --max-drop to accept a larger drop, or leave --int8 out" if work.bar.int8 else "update onnxruntime and openvino"
        hint = "use --precision auto: it is kept for fp32 alone" if work.precision == "bf16" else hint
        raise ExportError(f"the export was not kept: {'; '.join(refused)}", hint=hint)
    write(certificate, work.draft)
    return certificate


def _compared(work: Work, original: runtime.Session, sessions: Sequence[runtime.Session]) -> tuple[list[Way], float | None]:
    """Each session beside the original in fp32; the original's accuracy."""
    test = work.chosen.test
    if test is None:
        images = check_images(work.original.preprocessing.input_px)
        answers, labels = [one.run(images) for one in (original, *sessions)], None
    else:
        files = [test.file(i) for i in range(len(test))]
        answers, labels = compared.ask([original, *sessions], files, work.original.preprocessing), test.labels
    before, *found = answers
    ways = [
        compared.compare(
            before,
            logits,
            labels,
            engine=session.engine,
            provider=session.provider,
            precision=session.precision,
            temperature=work.original.temperature,
            bar=work.bar,
        )
        for session, logits in zip(sessions, found, strict=True)
    ]
    return ways, None if labels is None else float((before.argmax(axis=1) == labels).mean())


def _rates(work: Work, original: runtime.Session, sessions: Sequence[runtime.Session]) -> tuple[Rates, ...]:
    """Speed of the export, in each way that passed, and of the original, in ONNX Runtime and what is fastest here."""
    originals = [original, *([open_engine(work.original, "openvino", "auto")] if runtime.resolve("auto", "auto")[0] == "openvino" else [])]
    images = golden_images(work.original.preprocessing.input_px)
    named = [*(("original", one) for one in originals), *(("export", one) for one in sessions)]
    found = speed.rates([one for _, one in named], images)
    return tuple(Rates(name, one.engine, one.provider, one.precision, tuple(rows)) for (name, one), rows in zip(named, found, strict=True))


def _notices(work: Work, ways: Sequence[Way]) -> tuple[str, ...]:
    found = list(work.chosen.notices)
    if work.chosen.test is None:
        found.append(
            "no photos were given (--data): only golden pictures and noise were compared, in fp32, in which alone readers will compute it; "
            "nothing is known of accuracy"
        )
    for way in ways:
        if not way.passed and way.precision != "fp32":
            found.append(f"{way.engine} in {way.precision} gave {way.found}, the bar is {way.bar}: readers will compute it in fp32")
    first = ways[0]
    if work.bar.int8 and first.drop_ci95 is not None and first.passed and 100 * first.drop_ci95[1] > work.bar.max_drop:
        most = 100 * first.drop_ci95[1]
        found.append(f"{first.n} test photos cannot rule out a drop of up to {most:.1f} points; the limit is {work.bar.max_drop:g}")
    return tuple(found)


def _refusal(way: Way) -> str:
    """Why, in figures."""
    differ = f"{way.n_differ} of {way.n} photos answered otherwise, probabilities up to {way.largest_difference:.2g} off"
    return f"{way.engine} in {way.precision}: {way.found}; the bar is {way.bar} ({differ})"


def _name_of(bundle: Bundle) -> str:
    provenance = bundle.provenance
    backbone = provenance.get("backbone")
    name = backbone.get("name") if isinstance(backbone, dict) else None
    return ", ".join(str(one) for one in (provenance.get("name"), name) if one) or "a model"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def sha256_of(path: Path) -> str:
    """64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
