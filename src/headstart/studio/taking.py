"""A classifier as one file to take along."""

import tempfile
import zipfile
from pathlib import Path

from headstart.bundle.format import Bundle, load_bundle
from headstart.errors import DataError
from headstart.exporting.export import export
from headstart.files import atomic_file

README = """A classifier made with headstart.

model/model.onnx   the network. Input `image`: uint8 [n, {px}, {px}, 3], RGB; output `logits`: float32 [n, {k}], in the order of labels.txt
model/bundle.json  labels, preprocessing, temperature and thresholds
labels.txt         the classes, a line each
MODEL_CARD.md      what it was made of, how good it is, what to mind
{more}
With headstart:    headstart predict model PHOTO
"""

CERTIFIED = """model/CERTIFICATE.md   that this file answers the test photos as the original does, and how fast
model/example.*        programs that read a photo and print the answer, in Python and JavaScript
"""


def packed(run: Path, folder: Path) -> Path:
    """The model of a finished run as a .zip in `folder`: the certified ONNX export, labels, the model card. Made once.

    Where the test photos are gone or changed there is nothing to certify it on, and the run's own network is packed without.

    Raises: BundleError: the model is damaged. HeadstartError: the file cannot be written, or the export does not answer the same.
    """
    target = folder / f"{run.name}.zip"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        try:
            model = export(run, format="onnx", out=Path(temporary) / "model").folder
        except DataError:
            model = load_bundle(run).folder
        _write(target, load_bundle(model), run / "MODEL_CARD.md")
    return target


def _write(target: Path, bundle: Bundle, card: Path) -> None:
    files = sorted(path for path in bundle.folder.iterdir() if path.is_file())
    more = CERTIFIED if any(path.name == "CERTIFICATE.md" for path in files) else ""
    with atomic_file(target, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", README.format(px=bundle.preprocessing.input_px, k=len(bundle.labels), more=more))
        archive.writestr("labels.txt", "".join(f"{label.name}\n" for label in bundle.labels))
        for path in files:
            archive.write(path, f"model/{path.name}")
        if card.is_file():
            archive.write(card, card.name)
