"""Classifiers on frozen embeddings: only a small head is fitted, the encoder stays unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import OneClassSVM
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ballast.compute.parallel import for_each_batch
from ballast.compute.precision import cast_linear_weights, use_bf16
from ballast.data.long_texts import TRUNCATE, mean_of_parts, most_tokens
from ballast.models.base import WEIGHTS, Model
from ballast.models.cost import encoder_multiply_adds
from ballast.models.encoder import (
    check_positions,
    choose_device,
    count_tokens,
    load_pretrained,
    n_special,
    pad,
    read_parts,
    tokenize,
)
from ballast.models.frozen_layers import Arrays, Cache, HiddenStates, distinct, fingerprint
from ballast.models.pretrained import encoder_source

if TYPE_CHECKING:
    from ballast.technique import TrainingData, TrainingSettings

ENCODER = "encoder"
ITERATIONS = 2000


@dataclass
class Embedder:
    """A pre-trained encoder. The embedding of a text is its mean token state, scaled to length 1; of several parts, their mean.

    cached : embeddings of texts that were embedded before.
    Source: Reimers and Gurevych, Sentence-BERT (1908.10084).
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    precision: str = "auto"
    long_texts: str = TRUNCATE
    cached: HiddenStates | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        device: str,
        max_length: int | None = None,
        precision: str | None = None,
        long_texts: str | None = None,
    ) -> Embedder:
        """Load the encoder of a folder or a hub id. Length, precision and rule for long texts default to the saved ones.

        Raises ArgumentError if it cannot be loaded or has fewer positions than `max_length`.
        """
        tokenizer = load_pretrained(AutoTokenizer, source)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        network = load_pretrained(AutoModel, source, dtype=torch.float32).to(choose_device(device))
        if max_length is not None:
            check_positions(network, max_length, source)
        saved_precision = str(getattr(network.config, "precision", "auto"))
        saved_rule = str(getattr(network.config, "long_texts", TRUNCATE))
        length = max_length or tokenizer.model_max_length
        return cls(network, tokenizer, length, precision or saved_precision, long_texts or saved_rule)

    @property
    def bf16(self) -> bool:
        """Whether the encoder computes in bf16."""
        return use_bf16(self.precision, self.network.device)

    def cache_embeddings(self, corpus: Sequence[str], cache: Cache) -> None:
        """Cache the embeddings of a corpus. `cache` may return earlier ones."""
        texts = distinct(corpus)
        parts, rows = self.parts(texts)
        ids = [*tokenize(self.tokenizer, parts, self.max_length), rows]

        def embedded() -> Arrays:
            return {"values": torch.from_numpy(self.embed(texts)), "lengths": torch.ones(len(texts), dtype=torch.int64)}

        key = fingerprint(self.network, self.network.parameters(), ids, bf16=self.bf16)
        self.cached = HiddenStates.concatenated([(texts, cache(key, embedded))], torch.device("cpu"))

    def parts(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """What the encoder reads of texts (n,): parts (m,), and the row (m,) of the text of each."""
        return read_parts(self.tokenizer, texts, self.max_length, self.long_texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (n, d) float32 of texts (n,)."""
        if self.cached is not None and (indices := self.cached.indices(texts)) is not None:
            return self.cached.values.numpy()[indices]
        device = self.network.device
        parts, rows_of_parts = self.parts(texts)
        ids = tokenize(self.tokenizer, parts, self.max_length)
        embeddings = np.empty((len(ids), self.network.config.hidden_size), dtype=np.float32)
        self.network.eval()
        network = cast_linear_weights(self.network, bf16=self.bf16)

        def embed(rows: np.ndarray) -> None:
            inputs = pad(ids, rows, self.tokenizer.pad_token_id, device)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                states, mask = network(**inputs).last_hidden_state.float(), inputs["attention_mask"].unsqueeze(-1)
                mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
                embeddings[rows] = torch.nn.functional.normalize(mean).cpu().numpy()

        for_each_batch(embed, np.array([len(text_ids) for text_ids in ids], dtype=np.int64), device, "embedding")
        if len(parts) == len(texts):
            return embeddings
        mean_embeddings = mean_of_parts(embeddings, rows_of_parts, len(texts))
        return np.asarray(mean_embeddings / np.linalg.norm(mean_embeddings, axis=1, keepdims=True), dtype=np.float32)

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Number of tokens (n,) of each text, and how many of them the model reads."""
        return count_tokens(self.tokenizer, texts), most_tokens(self.max_length, n_special(self.tokenizer), self.long_texts)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        """Mean multiply-adds to embed one of texts (n,)."""
        parts, _ = self.parts(texts)
        tokens = np.minimum(count_tokens(self.tokenizer, parts), self.max_length)
        return round(encoder_multiply_adds(self.network, tokens, first_token=False) * len(parts) / max(1, len(texts)))

    def save(self, folder: Path) -> None:
        """Write encoder and tokenizer into a folder."""
        self.network.config.precision = self.precision
        self.network.config.long_texts = self.long_texts
        self.network.save_pretrained(folder)
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def embedder(data: TrainingData, settings: TrainingSettings) -> Embedder:
    """The encoder of the settings, with cached embeddings of the data's corpus."""
    encoder = Embedder.from_pretrained(
        encoder_source(settings.model), settings.device, settings.max_length, settings.precision, settings.long_texts
    )
    if data.corpus:
        encoder.cache_embeddings(data.corpus, settings.cache)
    return encoder


@dataclass
class EmbeddingModel(Model):
    """Logits are embeddings @ coefficients.T + intercept: coefficients (K, d), intercept (K,)."""

    kind: ClassVar[str] = "embedding"
    labels: list[str]
    embedder: Embedder
    coefficients: np.ndarray
    intercept: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return (self.embedder.embed(texts) @ self.coefficients.T + self.intercept).astype(np.float32)

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        return self.embedder.token_counts(texts)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        return self.embedder.multiply_adds(texts) + self.coefficients.size

    def save_files(self, folder: Path) -> None:
        self.embedder.save(folder / ENCODER)
        save_file({"coefficients": self.coefficients, "intercept": self.intercept}, folder / WEIGHTS)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> EmbeddingModel:
        return cls(labels, Embedder.from_pretrained(str(folder / ENCODER), "auto"), **load_file(folder / WEIGHTS))

    @property
    def n_parameters(self) -> int:
        return self.embedder.n_parameters + self.coefficients.size + self.intercept.size


@dataclass
class OneClassModel(Model):
    """A one-class support vector machine. Its decision value is the logit of the training class, and its negative of the other.

    support (s, d), dual (s,), intercept (1,), gamma (1,) of the kernel; scale (1,) is the standard deviation of the decision in
    training, so that logits are about 1 in size.
    """

    kind: ClassVar[str] = "one_class"
    labels: list[str]
    embedder: Embedder
    trained_on: np.ndarray
    support: np.ndarray
    dual: np.ndarray
    intercept: np.ndarray
    gamma: np.ndarray
    scale: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        if not len(texts):
            return np.empty((0, 2), dtype=np.float32)
        kernel = rbf_kernel(self.embedder.embed(texts), self.support, gamma=float(self.gamma[0]))
        decision = (kernel @ self.dual + self.intercept) / self.scale
        sign = np.where(np.arange(2) == self.trained_on[0], 1.0, -1.0)
        return (decision[:, None] * sign).astype(np.float32)

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        return self.embedder.token_counts(texts)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        return self.embedder.multiply_adds(texts) + self.support.size + self.dual.size

    def save_files(self, folder: Path) -> None:
        self.embedder.save(folder / ENCODER)
        names = ("trained_on", "support", "dual", "intercept", "gamma", "scale")
        save_file({name: getattr(self, name) for name in names}, folder / WEIGHTS)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> OneClassModel:
        return cls(labels, Embedder.from_pretrained(str(folder / ENCODER), "auto"), **load_file(folder / WEIGHTS))

    @property
    def n_parameters(self) -> int:
        return self.embedder.n_parameters + self.support.size + self.dual.size


def fit_linear_head(
    encoder: Embedder, embeddings: np.ndarray, labels: np.ndarray, names: list[str], inverse_penalty: float
) -> EmbeddingModel:
    """A multinomial logistic regression on embeddings (m, d) of classes (m,)."""
    regression = LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS).fit(embeddings, labels)
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(names) == 2:
        coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.array([-intercept[0], intercept[0]]) / 2
    return EmbeddingModel(names, encoder, np.ascontiguousarray(coefficients, np.float32), intercept.astype(np.float32))


def fit_one_class(encoder: Embedder, embeddings: np.ndarray, names: list[str], trained_on: int, nu: float) -> OneClassModel:
    """A one-class support vector machine on embeddings (m, d) of one class; `nu` bounds its share of outliers."""
    machine = OneClassSVM(nu=nu).fit(embeddings)
    scale = max(float(machine.decision_function(embeddings).std()), 1e-6)
    return OneClassModel(
        names,
        encoder,
        trained_on=np.array([trained_on]),
        support=np.ascontiguousarray(machine.support_vectors_.astype(np.float32)),
        dual=np.ascontiguousarray(machine.dual_coef_[0]),
        intercept=np.asarray(machine.intercept_, dtype=np.float64),
        gamma=np.array([machine._gamma]),
        scale=np.array([scale]),
    )
