"""Ensembles: the mean of the members' logits, whatever they share, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.utils.flop_counter import FlopCounterMode

import ballast
from ballast.evaluation.calibration import Calibration
from ballast.evaluation.priors import correct_prior
from ballast.exceptions import UserError
from ballast.models import folder as models
from ballast.models.base import Model
from ballast.models.encoder import EncoderModel, new_encoder_model
from ballast.models.ensemble import EnsembleModel, mean_logits
from ballast.models.prior import PriorModel
from tests.deployed import tfidf
from tests.project import corpus, tiny_encoder

LABELS = ["ham", "spam"]
TEXTS = corpus({"ham": 30, "spam": 10})["text"].tolist()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder"), layers=3))


def encoder(source: str, seed: int, frozen: int) -> EncoderModel:
    """An encoder whose layers above the lowest `frozen` ones differ by seed."""
    torch.manual_seed(0)
    model = new_encoder_model(source, LABELS, 32, torch.device("cpu"), "fp32")
    torch.manual_seed(seed)
    base = model.network.base_model
    lowest = {id(weight) for module in (base.embeddings, *base.encoder.layer[:frozen]) for weight in module.parameters()}
    with torch.no_grad():
        for weight in model.network.parameters():
            if frozen < 0 or id(weight) not in lowest:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2, 3])
def test_shared_layers_change_no_logit(source: str, frozen: int) -> None:
    members = [encoder(source, seed, frozen) for seed in range(3)]
    apart = [member.logits(TEXTS) for member in members]
    assert np.abs(apart[0] - apart[1]).max() > 0.01
    ensemble = EnsembleModel(LABELS, list(members))
    np.testing.assert_allclose(ensemble.logits(TEXTS), np.mean(apart, axis=0), rtol=0, atol=1e-5)
    # The last layer is never shared, because models change its attention to read the first token only.
    layers = 0 if ensemble.shared is None else ensemble.shared.layers
    assert layers == max(0, min(frozen, 2))
    assert (ensemble.n_parameters < sum(member.n_parameters for member in members)) == (layers > 0)


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_multiply_adds_are_those_that_torch_counts(source: str, frozen: int) -> None:
    members = [encoder(source, seed, frozen) for seed in range(3)]
    for model in (EnsembleModel(LABELS, list(members)), members[0]):
        with FlopCounterMode(display=False) as counter:
            model.logits(TEXTS[:1])
        assert model.multiply_adds(TEXTS[:1]) == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


def test_shared_layers_run_once(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [encoder(source, seed, frozen=2) for seed in range(3)]
    ensemble, passes = EnsembleModel(LABELS, list(members)), [0, 0, 0]
    assert ensemble.shared is not None
    for at, layer in enumerate(members[0].network.base_model.encoder.layer[:2]):
        layer.register_forward_hook(lambda *_, at=at: passes.__setitem__(at, passes[at] + 1))
    for member in members:
        last = member.network.base_model.encoder.layer[2]
        last.register_forward_hook(lambda *_: passes.__setitem__(2, passes[2] + 1))
    ensemble.logits(TEXTS[:2])
    assert passes == [1, 1, 3]


def other_length(model: EncoderModel) -> None:
    model.max_length = 16


def other_activation(model: EncoderModel) -> None:
    model.network.config.hidden_act = "relu"


def other_words(model: EncoderModel) -> None:
    model.tokenizer = deepcopy(model.tokenizer)
    model.tokenizer.add_tokens(["prize"])


@pytest.mark.parametrize("change", [other_length, other_activation, other_words])
def test_encoders_that_read_differently_share_nothing(source: str, change: Callable[[EncoderModel], None]) -> None:
    members = [encoder(source, seed, frozen=2) for seed in range(2)]
    change(members[1])
    assert EnsembleModel(LABELS, list(members)).shared is None


@pytest.mark.parametrize("kind", ["encoder", "tfidf"])
def test_a_saved_ensemble_gives_the_same_logits(source: str, kind: str, tmp_path: Path) -> None:
    members: list[Model] = (
        [encoder(source, seed, frozen=2) for seed in range(2)]
        if kind == "encoder"
        else [tfidf(corpus({"ham": 40, "spam": 20}, seed=seed)) for seed in range(2)]
    )
    ensemble = EnsembleModel(LABELS, members)
    models.save(ensemble, tmp_path, {})
    loaded = ballast.load(tmp_path)
    assert isinstance(loaded, EnsembleModel) and len(loaded.members) == 2 and loaded.labels == LABELS
    # A saved encoder is loaded with another implementation of attention, so the rounding differs.
    np.testing.assert_allclose(loaded.logits(TEXTS), ensemble.logits(TEXTS), rtol=0, atol=1e-5)
    assert loaded.n_parameters == ensemble.n_parameters
    weights = next((tmp_path / "members" / "1").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="members/1"):
        ballast.load(tmp_path)


def test_members_of_an_ensemble_have_the_same_labels_and_kind() -> None:
    ham_first = PriorModel(LABELS, np.zeros(2))
    with pytest.raises(UserError, match="at least one member"):
        EnsembleModel(LABELS, [])
    for other in (PriorModel(LABELS[::-1], np.zeros(2)), tfidf(corpus({"ham": 40, "spam": 20}))):
        with pytest.raises(UserError, match="member 1 of the ensemble"):
            EnsembleModel(LABELS, [ham_first, other])


def test_the_mean_commutes_with_a_change_of_the_prior_and_with_a_calibration() -> None:
    rng = np.random.default_rng(0)
    logits = list(3 * rng.normal(size=(3, 20, 2)))
    effective, production = np.array([0.6, 0.4]), np.array([0.95, 0.05])
    calibration = Calibration(temperature=1.7, bias=np.array([0.2, -0.2]))
    for change in (lambda scores: correct_prior(scores, effective, production), calibration.apply):
        first, last = mean_logits([change(of_member) for of_member in logits]), change(mean_logits(logits))
        np.testing.assert_allclose(log_softmax(first, axis=1), log_softmax(last, axis=1), atol=1e-6)


def test_the_log_loss_of_the_mean_is_at_most_the_mean_log_loss() -> None:
    rng = np.random.default_rng(1)
    logits, classes = list(4 * rng.normal(size=(3, 50, 3))), rng.integers(3, size=50)

    def log_loss(scores: np.ndarray) -> float:
        return float(-log_softmax(scores, axis=1)[np.arange(50), classes].mean())

    assert log_loss(mean_logits(logits)) < np.mean([log_loss(of_member) for of_member in logits])
