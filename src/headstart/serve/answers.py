"""The JSON that a server sends, for its OpenAPI page. Tests hold every answer against these."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Ranked(_Exact):
    label: str
    id: str | None = Field(description="the label's lasting name, such as ImageNet's synset, where it has one")
    probability: float = Field(ge=0, le=1)


class Predicted(_Exact):
    """One photo. Where it could not be read, `reason` says why and the rest is empty."""

    index: int | None = Field(description="of the label in the model's order, from 0")
    label: str | None
    id: str | None
    probability: float | None = Field(ge=0, le=1, description="calibrated")
    top: list[Ranked] = Field(description="the most probable labels, best first")
    reason: str | None = Field(description="why the photo could not be read")
    known: bool | None = Field(description="false: none of the labels, of which `label` is the nearest; null: the model does not say")
    labels: list[str] = Field(description="a set that holds the right label for a stated share of photos; empty: the model has no sets")


class Predictions(_Exact):
    """In the order of the photos."""

    model: str
    version: str = Field(description="of the model that answered; another one after a reload")
    predictions: list[Predicted]


class HeatMapAnswer(_Exact):
    """Where in the photo the answer came from."""

    model: str
    version: str
    label: str
    probability: float = Field(ge=0, le=1)
    probability_hidden: float = Field(ge=0, le=1, description="of the same label once the whole photo is hidden")
    found: bool = Field(description="false: no part of the photo speaks for the label")
    png: str = Field(description="the photo in grey with the places in colour, a PNG in base64")


class ModelLabel(_Exact):
    name: str
    id: str | None
    threshold: float | None = Field(description="least probability at which to believe it, where the model has one")


class Model(_Exact):
    name: str
    version: str
    labels: list[ModelLabel] = Field(description="in the order of `index`")
    preprocessing: dict[str, Any] = Field(description="what is done to a photo")
    temperature: float
    none_of_these: dict[str, Any] | None
    conformal: dict[str, Any] | None
    licence: str | None
    provenance: dict[str, Any]
    card: str | None = Field(description="the run's MODEL_CARD.md, where it has one")
    engine: str
    decoder: str
    loaded: str = Field(description="UTC")


class ModelName(_Exact):
    name: str
    version: str
    n_labels: int


class ModelList(_Exact):
    """The first is the one that answers where none is named."""

    models: list[ModelName]


class State(_Exact):
    status: str


class Problem(_Exact):
    """Every answer that is no result."""

    error: str
    hint: str | None = None
