"""The interface of all trained models. Weights are safetensors; nothing is unpickled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.special import softmax

from ballast.exceptions import UserError

WEIGHTS = "model.safetensors"


def check_texts(texts: Iterable[str]) -> list[str]:
    """Return texts as a list.

    Raises UserError for a single string and for an item that is not a string; the message names the item's index.

    >>> check_texts(("win a prize", "see you at eight"))
    ['win a prize', 'see you at eight']
    >>> check_texts("win a prize")
    Traceback (most recent call last):
    ballast.exceptions.UserError: texts: expected a list of strings, got a single string; pass [text]
    """
    if isinstance(texts, str | bytes):
        raise UserError("texts: expected a list of strings, got a single string; pass [text]")
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise UserError(f"texts: expected a list of strings, got {type(texts).__name__}")
    checked = list(texts)
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise UserError(f"texts[{index}]: expected a string, got {type(text).__name__}; convert or drop it")
    return checked


class Model(ABC):
    """A classifier of texts into K classes, with the methods of a fitted scikit-learn classifier.

    Attributes
    ----------
    kind : name of the kind of model, such as `tfidf`.
    labels : the K class names, in the order of the columns of `logits` and `predict_proba`.

    Examples
    --------
    >>> from ballast.models.prior import PriorModel
    >>> model = PriorModel(labels=["ham", "spam"], log_prior=np.log([0.75, 0.25]))
    >>> model.predict_proba(["call me", "you won a prize"]).round(2)
    array([[0.75, 0.25],
           [0.75, 0.25]])
    >>> model.predict(["call me"])
    array(['ham'], dtype='<U4')
    """

    kind: ClassVar[str]
    labels: list[str]

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (n, K) float32 of texts (n,), in their order."""

    @property
    def classes_(self) -> np.ndarray:
        """The labels (K,) as an array, as scikit-learn names them."""
        return np.array(self.labels)

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Probabilities (n, K) float64 of texts (n,), the softmax of the logits; each row sums to 1.

        They are right for the class prior that the training implies; `ballast.load_deployed` corrects them to production.
        Raises UserError for a single string and for an item that is not a string.
        """
        return np.asarray(softmax(self.logits(check_texts(texts)).astype(np.float64), axis=1))

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """The most probable label (n,) of each of texts (n,).

        Raises UserError for a single string and for an item that is not a string.
        """
        return self.classes_[self.logits(check_texts(texts)).argmax(axis=1)]

    @abstractmethod
    def save_files(self, folder: Path) -> None:
        """Write weights and configuration into an existing folder."""

    @classmethod
    @abstractmethod
    def load_files(cls, folder: Path, labels: list[str]) -> Model:
        """Read what `save_files` wrote."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of weights."""

    def multiply_adds(self, texts: Sequence[str]) -> int:
        """Mean multiply-adds to score one of texts (n,): what a model costs, the same on every machine.

        By default, each weight is used once.
        """
        return self.n_parameters

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int] | None:
        """Number of tokens (n,) of each text, and the maximum that the model reads; None if it reads texts of any length."""
        return None

    def head_arrays(self) -> dict[str, np.ndarray]:
        """Row norms (K,) and bias (K,) of a linear head as `head_norms` and `head_bias`; empty if there is no such head."""
        return {}
