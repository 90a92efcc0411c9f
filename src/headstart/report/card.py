"""`write_card`: the model card of a run, Markdown under the metadata that Hugging Face reads.

It is made to be published, so it names no photo, no folder and no command of the machine it was made on.
"""

import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from headstart.data.named import CIFAR10_HUB_ID, cifar10_folder
from headstart.files import atomic_file
from headstart.report import scores, sections, words
from headstart.report.checks import duplicates, naive, shortcuts, suspects
from headstart.report.folder import RunFolder, number, pair, read_run, section, texts, whole
from headstart.report.sets import sets, unknown
from headstart.report.tuning import story

CARD_FILE = "MODEL_CARD.md"

_MOST_CLASSES = 100  # named in a line
_MOST_ROWS = 200
_MOST_CONFUSIONS = 10
_NAME_LENGTH = 80  # in the metadata
_LONGEST_TEXT = 800  # of one value; no sentence of ours is as long
_SCORES = {"accuracy": "Accuracy", "f1_macro": "F1, mean over classes", "precision_macro": "Precision, mean over classes"}
_SCORES |= {"recall_macro": "Recall, mean over classes"}
_OWN_PHOTOS = "imagefolder"  # how Hugging Face's `datasets` calls a folder of photos; an id in its place would claim a public data set
_HUB = "https://huggingface.co/"
# Those of Hugging Face's identifiers that weights come under; any other licence goes by its own name.
_LICENCES = frozenset(
    ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0")
)


def write_card(run_dir: Path) -> Path:
    """Write `MODEL_CARD.md` into a run folder.

    Returns: the path of the card.

    Raises:
        DataError: `run_dir` is no run folder.
        HeadstartError: the file cannot be written.
    """
    folder = read_run(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown has its own signs: every value goes through `_shown`
    )
    page = environment.get_template("card.md").render(_context(folder))
    target = run_dir / CARD_FILE
    with atomic_file(target) as file:
        file.write(page)
    return target


def markdown(text: str) -> str:
    """`text` as Markdown that reads the same: one line, no sign of it obeyed, HTML and links too; the very long lose their middle."""
    whole_text = words.visible(text)
    if len(whole_text) > _LONGEST_TEXT:
        whole_text = f"{whole_text[: _LONGEST_TEXT // 2]}…{whole_text[-_LONGEST_TEXT // 4 :]}"
    signs = re.sub(r"([\\`*_\[\]|~$#@!])", r"\\\1", whole_text)
    signs = re.sub(r"(?i)\b(www)\.", r"\1\\.", signs).replace("://", "\\://")  # else they become links
    return signs.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shown(value: Any) -> Any:
    """What the template puts in: numbers and `safe` text as they are, all other text escaped."""
    return value if isinstance(value, Markup | int) else markdown(str(value))


def _context(folder: RunFolder) -> dict[str, Any]:
    """Everything the card shows, by the names that card.md uses."""
    rows = sections.class_rows(folder)
    baseline = number(folder.test.get("baseline_majority"))
    return {
        "metadata": Markup(metadata(folder).to_yaml()),
        "title": _title(folder),
        "classes": _classes(folder),
        "most_classes": _MOST_CLASSES,
        "headline": words.headline(folder.test),
        "data_name": str(folder.of("data", "name") or ""),
        "data": _data(folder),
        "scores": scores.all_scores(folder.test),
        "baseline": None if baseline is None else words.percent(baseline),
        "rows": rows[:_MOST_ROWS],
        "n_rows_left": max(0, len(rows) - _MOST_ROWS),
        "confusions": words.confusions(folder.test)[:_MOST_CONFUSIONS],
        "sure": _sure(folder),
        "training": _training(folder),
        "limits": _limits(folder),
        "licence": _licence(folder),
    }


def metadata(folder: RunFolder) -> ModelCardData:
    """What stands above the card. Source: huggingface.co/docs/hub/model-cards, model-index as in its modelcard.md."""
    data_name = words.visible(str(folder.of("data", "name") or "unnamed"))[:_NAME_LENGTH]
    title = words.visible(_title(folder))[:_NAME_LENGTH]
    licence, base_model, public = str(folder.of("backbone", "licence") or "unknown"), _base_model(folder), _public_data(folder)
    is_known = licence.lower() in _LICENCES
    is_other = not is_known and licence != "unknown"
    return ModelCardData(
        base_model=base_model,
        license="other" if is_other else licence.lower(),
        license_name=_slug(licence) if is_other else None,
        license_link=_HUB + base_model if is_other and base_model is not None else None,  # where the weights' terms stand
        library_name="headstart",
        pipeline_tag="image-classification",
        tags=["image-classification", "transfer-learning", "headstart", "onnx"],
        datasets=None if public is None else [public],
        metrics=["accuracy", "f1", "precision", "recall"],
        model_name=title,
        eval_results=_results(folder.test, data_name, public or _OWN_PHOTOS),
    )


def _base_model(folder: RunFolder) -> str | None:
    """Hugging Face repository of the weights, where it is on record: `timm/resnet50.tv_in1k`."""
    hub_id = folder.of("backbone", "hub_id")
    return hub_id if isinstance(hub_id, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id) else None


def _public_data(folder: RunFolder) -> str | None:
    """Id of the data set on the Hugging Face Hub, where the run is certain to be on it; a folder of whatever name may hold anything."""
    root = folder.of("data", "root")
    return CIFAR10_HUB_ID if isinstance(root, str) and Path(root).name == cifar10_folder() else None


def _results(test: dict[str, Any], data_name: str, data_type: str) -> list[EvalResult] | None:
    found = []
    for key, name in _SCORES.items():
        value, interval = number(test.get(key)), pair(section(test, "ci95").get(key))
        if value is not None:
            between = "" if interval is None else f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})"
            found.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image Classification",
                    dataset_type=data_type,
                    dataset_name=data_name,
                    dataset_split="test",
                    metric_type=key.removesuffix("_macro"),
                    metric_name=name + between,
                    metric_value=round(value, 4),
                )
            )
    return found or None


def _slug(text: str) -> str:
    """A name as Hugging Face's identifiers may be: letters, digits, hyphen, underscore, dot."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "unnamed"


def _title(folder: RunFolder) -> str:
    return str(folder.of("name") or folder.path.absolute().name)


def _classes(folder: RunFolder) -> list[str]:
    listed = texts(folder.of("data", "classes"))
    return listed if listed else words.matrix(folder.test)[0]


def _data(folder: RunFolder) -> list[str]:
    """What it learned from, and what is known to be wrong with it."""
    name, counts = str(folder.of("data", "name") or "not named"), folder.split
    sizes = [f"{sum(counts[split].values()):,} {split}" for split in ("train", "val", "test") if counts.get(split)]
    lines = [f"Data: {name}."]
    if sizes:
        lines.append(f"{words.count(sum(sum(each.values()) for each in counts.values()), 'photo', 'photos')}: {', '.join(sizes)}.")
    if folder.omitted:
        lines.append(f"{words.count(len(folder.omitted), 'photo', 'photos')} could not be used and were left out.")
    repeated, doubtful, scored = duplicates(folder), suspects(folder), naive(folder)
    if repeated is not None:
        lines += repeated.sentences
    if scored is not None and scored.differ and repeated is not None and not repeated.n_across_splits:
        lines.append(
            f"With duplicates on both sides of a split the same head would seem to reach {scored.naive.text} % "
            f"instead of {scored.honest.text} %; the figures below are of a split that keeps them together."
        )
    if doubtful is not None and doubtful.n:
        lines.append(f"{words.count(doubtful.n, 'label', 'labels')} of {doubtful.n_checked:,} looked at may be wrong.")
    return lines


def _sure(folder: RunFolder) -> list[str]:
    """Calibration, what is none of the classes, sets of labels."""
    lines = [words.calibration(folder, None)]
    strange, several = unknown(folder), sets(folder)
    lines += [strange.sentence, strange.alarms, strange.caution] if strange is not None else []
    lines += [several.sentence] if several is not None else []
    return [line for line in lines if line] or ["Not measured."]


def _training(folder: RunFolder) -> list[tuple[str, str]]:
    """The facts of the run without what names this machine; the classes of a weights file say where it came from."""
    found = [(title, text) for title, text in sections.facts(folder) if title in ("Backbone", "Weights", "Head", "Answers")]
    told = story(folder.run)
    found += [("Fine-tuning", told.summary)] if told is not None else []
    versions = section(folder.run, "versions")
    made = [f"headstart {folder.of('headstart')}"] if folder.of("headstart") else []
    made += [f"{key} {versions[key]}" for key in ("torch", "timm") if versions.get(key)]
    made += [f"seed {folder.of('seed')}"] if folder.of("seed") is not None else []
    return [*found, *([("Made with", ", ".join(made))] if made else [])]


def _limits(folder: RunFolder) -> list[str]:
    """What whoever uses it should know."""
    lines = [
        "The figures hold for photos taken as the test photos were. Other cameras, places or seasons may do worse: test it on some first."
    ]
    lines += [f"{each.warning}" for each in shortcuts(folder) if each.warning]
    if unknown(folder) is None:
        lines.append("A photo of something else is given one of the classes all the same, sometimes with a high probability.")
    few = [row.name for row in sections.class_rows(folder) if row.n_train is not None and row.n_train < 20]
    if few:
        lines.append(f"{words.count(len(few), 'class has', 'classes have')} fewer than 20 photos to learn from.")
    test_n = whole(folder.test.get("n"))
    if test_n and test_n < 300:
        lines.append(f"It was tested on {words.count(test_n, 'photo', 'photos')} only; the intervals say how far that carries.")
    lines.append("It inherits what the photos and the pretrained weights leave out or show one-sidedly.")
    return lines


def _licence(folder: RunFolder) -> str:
    licence = folder.of("backbone", "licence")
    named = f"The backbone's weights are under: {licence}." if licence else "The licence of the backbone's weights is not known."
    return f"{named} The classifier holds them, so their terms hold for it too; what your photos' terms add is yours to say."
