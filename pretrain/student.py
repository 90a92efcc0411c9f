"""The network in training with what it learns from: its own classes, and the teacher's features and answers for the same view."""

from dataclasses import dataclass

import torch

from pretrain.teacher import Lessons

functional = torch.nn.functional


@dataclass(frozen=True)
class Batch:
    """One step's photos, or a part of them: x_nchw float32, labels int64 [n], features float32 [n, d] of the teacher."""

    x_nchw: torch.Tensor
    labels: torch.Tensor
    features: torch.Tensor


class Student(torch.nn.Module):
    """A timm network, and a linear map from its pooled features to the teacher's (left out of the export)."""

    def __init__(self, network: torch.nn.Module, lessons: Lessons) -> None:
        super().__init__()
        self.network = network
        features = torch.from_numpy(lessons.features[0]).float()
        self.mimic = torch.nn.Linear(network.num_features, features.shape[1])
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0))
        self.register_buffer("weight", lessons.weight)
        self.register_buffer("bias", lessons.bias)

    def forward(self, x_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [n, classes] and the mimicked features [n, d], standardised."""
        pooled = self.network.forward_head(self.network.forward_features(x_nchw), pre_logits=True)
        return self.network.get_classifier()(pooled), self.mimic(pooled)

    def loss(self, batch: Batch, weights: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over the photos of the weighted losses, and the logits.

        Args: weights: of the cross-entropy with the labels, of the squared error of the teacher's standardised features (mean over them),
            and of the divergence from the teacher's answers to its own classes.
        """
        by_label, by_feature, by_answer = weights
        logits, mimicked = (y.float() for y in self(batch.x_nchw))
        wanted = (batch.features - self.mean) / self.std
        loss = by_label * functional.cross_entropy(logits, batch.labels, reduction="sum")
        loss = loss + by_feature * functional.mse_loss(mimicked, wanted, reduction="sum") / wanted.shape[1]
        answers = functional.linear(mimicked * self.std + self.mean, self.weight, self.bias).log_softmax(1)
        teacher = functional.linear(batch.features, self.weight, self.bias).log_softmax(1)
        return loss + by_answer * functional.kl_div(answers, teacher, reduction="sum", log_target=True), logits
