"""TF-IDF features with a multinomial logistic regression, saved as a JSON vocabulary and safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ballast.exceptions import UserError
from ballast.models.base import WEIGHTS, Model

VOCABULARY = "vocabulary.json"
ITERATIONS = 1000


def vectorizer(vocabulary: dict[str, int] | None = None) -> TfidfVectorizer:
    """Unigrams and bigrams of words and single symbols: prices, digits and exclamation marks indicate spam, too."""
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]", vocabulary=vocabulary, dtype=np.float32
    )


@dataclass
class TfidfModel(Model):
    """Logits are features @ coefficients.T + intercept: coefficients (K, V), intercept (K,)."""

    kind: ClassVar[str] = "tfidf"
    labels: list[str]
    features: TfidfVectorizer
    coefficients: np.ndarray
    intercept: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        if not len(texts):
            return np.empty((0, len(self.labels)), dtype=np.float32)
        scores = self.features.transform(texts) @ self.coefficients.T + self.intercept
        return scores.astype(np.float32)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        return round(self.features.transform(texts).nnz / len(texts) * len(self.labels)) if len(texts) else 0

    def save_files(self, folder: Path) -> None:
        vocabulary = {term: int(index) for term, index in self.features.vocabulary_.items()}
        (folder / VOCABULARY).write_text(json.dumps(vocabulary, sort_keys=True), encoding="utf-8")
        tensors = {"idf": self.features.idf_, "coefficients": self.coefficients, "intercept": self.intercept}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> TfidfModel:
        features = vectorizer(json.loads((folder / VOCABULARY).read_text(encoding="utf-8")))
        tensors = load_file(folder / WEIGHTS)
        features.idf_ = tensors["idf"]
        return cls(labels, features, tensors["coefficients"], tensors["intercept"])

    @property
    def n_parameters(self) -> int:
        return int(self.coefficients.size + self.intercept.size)


def fit_tfidf(
    texts: Sequence[str], labels: np.ndarray, weights: np.ndarray, names: list[str], inverse_penalty: float
) -> TfidfModel:
    """Fit on texts (n,), labels (n,) and weights (n,). Raises UserError if no text contains a token."""
    features = vectorizer()
    try:
        matrix = features.fit_transform(texts)
    except ValueError as error:
        raise UserError(f"tfidf: the training texts contain no words ({error})") from error
    regression = LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS)
    regression.fit(matrix, labels, sample_weight=weights)
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(names) == 2:
        coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.array([-intercept[0], intercept[0]]) / 2
    return TfidfModel(names, features, coefficients.astype(np.float32), intercept.astype(np.float32))
