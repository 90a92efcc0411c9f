"""A classifier as one file to take along."""

import zipfile
from pathlib import Path

from headstart.bundle.format import load_bundle
from headstart.files import atomic_file

README = """A classifier made with headstart.

model/model.onnx   the network. Input `image`: uint8 [n, {px}, {px}, 3], RGB; output `logits`: float32 [n, {k}], in the order of labels.txt
model/bundle.json  labels, preprocessing, temperature and thresholds
labels.txt         the classes, a line each
MODEL_CARD.md      what it was made of, how good it is, what to mind

With headstart:    headstart predict model PHOTO
"""


def packed(run: Path, folder: Path) -> Path:
    """The model of a finished run as a .zip in `folder`: ONNX, labels and everything about it as JSON, the model card. Made once.

    Raises: BundleError: the model is damaged. HeadstartError: the file cannot be written.
    """
    target = folder / f"{run.name}.zip"
    if target.exists():
        return target
    bundle = load_bundle(run)
    files = {f"model/{name}": bundle.folder / name for name in ("bundle.json", *bundle.record.files)}
    card = run / "MODEL_CARD.md"
    readme = README.format(px=bundle.preprocessing.input_px, k=len(bundle.labels))
    with atomic_file(target, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", readme)
        archive.writestr("labels.txt", "".join(f"{label.name}\n" for label in bundle.labels))
        for name, path in (*files.items(), *([("MODEL_CARD.md", card)] if card.is_file() else [])):
            archive.write(path, name)
    return target
