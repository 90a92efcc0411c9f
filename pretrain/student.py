"""The network in training with what it learns from: its own classes, and the teacher's features and answers for the same view."""

from dataclasses import dataclass

import torch

from pretrain.sources import NO_LABEL
from pretrain.teacher import Classifier

functional = torch.nn.functional


@dataclass(frozen=True)
class Batch:
    """One step's views, or a part of them.

    Fields: x_nchw: float32. labels, other_labels: int64 [n], of the photo and of the patch's; `NO_LABEL`: none. patched: float32 [n], share
    of the area that is the patch. features: float32 [n, 2 d] of the teacher.
    """

    x_nchw: torch.Tensor
    labels: torch.Tensor
    other_labels: torch.Tensor
    patched: torch.Tensor
    features: torch.Tensor


class Student(torch.nn.Module):
    """A timm network, and a linear map from its pooled features to the teacher's (left out of the export)."""

    def __init__(self, network: torch.nn.Module, classifier: Classifier, features: torch.Tensor) -> None:
        """Args: features: float32 [n, 2 d], many of the teacher's, for their means and deviations."""
        super().__init__()
        self.network = network
        self.mimic = torch.nn.Linear(network.num_features, features.shape[1])  # type: ignore[arg-type]
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0))
        self.register_buffer("weight", classifier.weight)
        self.register_buffer("bias", classifier.bias)

    def forward(self, x_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [n, classes] and the mimicked features [n, 2 d], standardised."""
        pooled = self.network.forward_head(self.network.forward_features(x_nchw), pre_logits=True)  # type: ignore[operator]
        return self.network.get_classifier()(pooled), self.mimic(pooled)  # type: ignore[operator]

    def loss(self, batch: Batch, weights: tuple[float, float, float]) -> torch.Tensor:
        """Sum over the views of the weighted losses.

        Args: weights: of the cross-entropy with the labels, of the squared error of the teacher's standardised features (mean over them),
            and of the divergence from the teacher's answers to its own classes.
        """
        by_label, by_feature, by_answer = weights
        logits, mimicked = (y.float() for y in self(batch.x_nchw))
        wanted = (batch.features - self.mean) / self.std
        named = _cross_entropies(logits, batch.labels) * (1 - batch.patched) + _cross_entropies(logits, batch.other_labels) * batch.patched
        loss = by_label * named.sum()
        loss = loss + by_feature * functional.mse_loss(mimicked, wanted, reduction="sum") / wanted.shape[1]
        answers = self._answers(mimicked * self.std + self.mean)
        return loss + by_answer * functional.kl_div(answers, self._answers(batch.features), reduction="sum", log_target=True)

    def _answers(self, features: torch.Tensor) -> torch.Tensor:
        return functional.linear(features[:, : self.weight.shape[1]], self.weight, self.bias).log_softmax(1)


def _cross_entropies(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels, reduction="none", ignore_index=NO_LABEL)
