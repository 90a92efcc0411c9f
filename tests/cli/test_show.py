"""What is printed of a set's scores."""

import numpy as np
import pytest

from headstart.cli.show import show_metrics
from headstart.evaluate.metrics import evaluate


def shown(labels: list[int], predicted: list[int], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines for answers given with 0.8, of classes called cat, dog and eel."""
    probs = np.full((len(labels), 3), 0.1)
    probs[np.arange(len(labels)), predicted] = 0.8
    show_metrics(evaluate(probs, labels, ["cat", "dog", "eel"]), "made-up photos")
    return capsys.readouterr().out.splitlines()


def test_classes_of_one_size_need_no_balanced_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], capsys)
    assert lines[1].split() == ["class", "precision", "recall", "f1", "AUC", "photos"]
    assert lines[2].split() == ["cat", "1.000", "1.000", "1.000", "1.000", "2"]
    assert lines[-1].startswith("Accuracy 1.000 (95 % interval 0.610 to 1.000; made-up photos)")


def test_unbalanced_classes_and_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([0] * 20 + [1] * 4 + [2] * 2, [0] * 18 + [1] * 2 + [0, 1, 1, 1] + [1, 1], capsys)
    assert lines[-2].startswith("Balanced accuracy 0.550 (95 % interval 0.")
    assert lines[-1] == "Most often mistaken: cat for dog, 2 of 20 (10 %); eel for dog, 2 of 2 (100 %); dog for cat, 1 of 4 (25 %)"


def test_a_class_without_photos_has_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([0, 1, 0, 1], [0, 1, 0, 1], capsys)
    assert lines[4].split() == ["eel", "-", "-", "-", "-", "0"]
