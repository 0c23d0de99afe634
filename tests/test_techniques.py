"""The contract that every technique found keeps, and the identities that tie them to each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ballast.exceptions import UserError
from ballast.sampling import inverse_frequency
from ballast.technique import TrainingData, TrainingSettings, cross_entropy, weighted_share
from ballast.techniques import accepted_parameters, build, technique_names
from ballast.training.fine_tune import fine_tune

# What a technique needs when it has no default of its own.
PARAMETERS = {"class_weight": {"weights": "inverse"}}
COUNTS = {2: np.array([90, 10]), 3: np.array([30, 12, 6]), 8: np.array([284, 200, 120, 60, 30, 15, 8, 4])}
# The regulariser of lade is a bound of a divergence, and a bound may be negative.
MAY_BE_NEGATIVE = {"lade"}


def names(classes: int) -> list[str]:
    return [f"class {index}" for index in range(classes)]


def labels_of(counts: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def made(technique: str, classes: int = 2, **parameters: object):
    return build(technique, COUNTS[classes], names(classes), {**PARAMETERS.get(technique, {}), **parameters})


def for_two_classes_only(technique: str) -> bool:
    """Whether a technique says that it is for two classes."""
    try:
        made(technique, 3)
    except UserError as error:
        assert "is for two classes, not 3" in str(error)
        return True
    return False


EVERY = [
    (technique, classes)
    for technique in technique_names()
    for classes in COUNTS
    if classes == 2 or not for_two_classes_only(technique)
]
every_technique = pytest.mark.parametrize(("technique", "classes"), EVERY)


def test_the_articles_techniques_are_there() -> None:
    assert {
        "augment", "balanced_sampler", "baseline", "bias_init", "class_weight", "down_and_upsample", "downsample",
        "downsample_upweight", "effective_number", "focal", "lade", "ldam", "logit_adjust", "majority", "one_class", "rose",
        "smote", "tfidf", "upsample", "upsample_downweight",
    } <= set(technique_names())  # fmt: skip
    assert [technique for technique in technique_names() if for_two_classes_only(technique)] == ["one_class"]


@every_technique
def test_sample_draws_rows_of_every_class_and_is_repeatable(technique: str, classes: int) -> None:
    labels = labels_of(COUNTS[classes])
    sample = made(technique, classes).sample
    rows, weights = sample(labels, np.random.default_rng(7))
    again, _ = sample(labels, np.random.default_rng(7))
    assert rows.shape == weights.shape and np.array_equal(rows, again)
    assert rows.min() >= 0 and rows.max() < len(labels)
    assert set(labels[rows]) == set(range(classes))
    assert np.all(weights > 0) and np.all(np.isfinite(weights))


@every_technique
def test_loss_is_finite_with_finite_gradients_and_zero_weight_is_zero_loss(technique: str, classes: int) -> None:
    torch.manual_seed(0)
    logits = torch.cat([torch.randn(16, classes), 60 * torch.eye(classes), -60 * torch.eye(classes)]).requires_grad_()
    labels = torch.arange(len(logits)) % classes
    loss = made(technique, classes).loss(logits, labels, torch.ones(len(logits)), 0.5)
    assert loss.shape == labels.shape and torch.isfinite(loss).all()
    assert technique in MAY_BE_NEGATIVE or (loss >= 0).all()
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert made(technique, classes).loss(logits, labels, torch.zeros(len(logits)), 0.5).abs().max() == 0


@every_technique
def test_declared_prior_is_a_distribution_or_none(technique: str, classes: int) -> None:
    share = COUNTS[classes] / COUNTS[classes].sum()
    prior = made(technique, classes).declared_prior(share)
    assert prior is None or (prior.shape == (classes,) and math.isclose(prior.sum(), 1) and np.all(prior > 0))


@every_technique
def test_head_initialisation_leaves_finite_weights(technique: str, classes: int) -> None:
    head = made(technique, classes).head(torch.nn.Linear(5, classes))
    assert torch.isfinite(head.weight).all() and torch.isfinite(head.bias).all()
    assert head(torch.randn(7, 5)).shape == (7, classes)


@every_technique
def test_an_epoch_has_as_many_rows_as_the_sample(technique: str, classes: int) -> None:
    labels = labels_of(COUNTS[classes])
    lengths = np.random.default_rng(0).integers(3, 40, len(labels))
    batches = made(technique, classes).batches(lengths, labels, 16, np.random.default_rng(5))
    again = made(technique, classes).batches(lengths, labels, 16, np.random.default_rng(5))
    assert len(batches) == math.ceil(len(labels) / 16) and sum(map(len, batches)) == len(labels)
    assert max(map(len, batches)) <= 16 and np.concatenate(batches).max() < len(labels)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@every_technique
def test_only_repeated_texts_are_changed(technique: str, classes: int) -> None:
    texts = [f"call {number} now to claim" for number in range(40)]
    repeated = np.arange(40) >= 30
    found = list(made(technique, classes).texts(texts, repeated, np.random.default_rng(1)))
    assert found[:30] == texts[:30] and len(found) == 40 and all(each.strip() for each in found)
    assert found == list(made(technique, classes).texts(texts, repeated, np.random.default_rng(1)))


@pytest.mark.parametrize("technique", technique_names())
def test_unknown_parameter_is_an_error_that_lists_the_known(technique: str) -> None:
    with pytest.raises(UserError, match="unknown parameter 'nonsense'") as error:
        made(technique, nonsense=1)
    assert all(name in str(error.value) for name in accepted_parameters(technique))


@pytest.mark.parametrize("technique", technique_names())
def test_trains_saves_and_scores(technique: str, tiny_encoder, tmp_path) -> None:
    import ballast
    from ballast.models import folder as models

    classes = 2 if for_two_classes_only(technique) else 3
    counts = COUNTS[3][:classes]
    labels = labels_of(counts)
    texts = [f"{['meeting at noon', 'free prize call now', 'parcel is late'][label]} {row}" for row, label in enumerate(labels)]
    declared = build(technique, counts, names(classes), PARAMETERS.get(technique, {}))
    rows, weights = declared.sample(labels, np.random.default_rng(0))
    data = TrainingData(texts=[texts[row] for row in rows], labels=labels[rows], weights=weights, label_names=names(classes))
    steps = []
    training = TrainingSettings(
        model=str(tiny_encoder), epochs=2, batch_size=8, learning_rate=1e-3, max_length=16, seed=0, device="cpu",
        precision="fp32", on_step=lambda step, total, loss, rate: steps.append((step, total, loss, rate)),
    )  # fmt: skip
    model = fine_tune(declared, data, training) if declared.fit is None else declared.fit(data, training)
    logits = model.logits(texts)
    assert logits.shape == (len(texts), classes) and logits.dtype == np.float32 and np.isfinite(logits).all()
    assert model.logits([]).shape == (0, classes)
    if steps:
        assert steps[-1][0] == steps[-1][1] == 2 * math.ceil(len(rows) / 8)
    models.save(model, tmp_path, {"seed": 0})
    loaded = ballast.load(tmp_path)
    assert loaded.labels == names(classes)
    np.testing.assert_allclose(loaded.logits(texts), logits, atol=1e-5)
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.p*kl"))


logit_rows = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1, max_size=20)


@given(logit_rows)
@settings(max_examples=50, deadline=None)
def test_focal_with_gamma_0_is_cross_entropy(rows: list[list[float]]) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.arange(len(rows)) % 3
    focal = build("focal", np.array([5, 3, 2]), names(3), {"gamma": 0})
    expected = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(focal.loss(logits, labels, torch.ones(len(rows)), 0.0), expected)


@given(logit_rows, st.floats(0, 5), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_focal_is_the_papers_equation(rows: list[list[float]], gamma: float, alpha: float) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)[:, :2]
    labels = torch.arange(len(rows)) % 2
    focal = build("focal", np.array([8, 2]), ["ham", "spam"], {"gamma": gamma, "alpha": {"spam": alpha}})
    probability = functional.softmax(logits, dim=1)[torch.arange(len(rows)), labels]
    alphas = torch.where(labels == 1, alpha, 1 - alpha)
    expected = -alphas * (1 - probability) ** gamma * functional.log_softmax(logits, dim=1)[torch.arange(len(rows)), labels]
    torch.testing.assert_close(focal.loss(logits, labels, torch.ones(len(rows)), 0.0), expected, atol=1e-9, rtol=1e-6)


@given(logit_rows, st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_a_weight_is_as_many_repeats(rows: list[list[float]], weight: int) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.arange(len(rows)) % 3
    weighted = cross_entropy(logits, labels, torch.full((len(rows),), float(weight)), 0.0).sum()
    repeated = cross_entropy(logits.repeat(weight, 1), labels.repeat(weight), torch.ones(weight * len(rows)), 0.0).sum()
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("technique", ["downsample_upweight", "upsample_downweight"])
@pytest.mark.parametrize("ratio", [1.0, 2.5, 4])
@pytest.mark.parametrize("classes", COUNTS)
def test_reweighted_samples_keep_the_expected_loss(technique: str, ratio: float, classes: int) -> None:
    """With one loss per class the loss of the sample is exactly the baseline's over all rows."""
    labels = labels_of(COUNTS[classes])
    rows, weights = made(technique, classes, ratio=ratio).sample(labels, np.random.default_rng(3))
    assert len(rows) != len(labels)
    loss_of_class = np.random.default_rng(4).random(classes)
    assert math.isclose((weights * loss_of_class[labels[rows]]).sum(), loss_of_class[labels].sum())
    share = weighted_share(labels[rows], weights, None, classes)
    np.testing.assert_allclose(share, COUNTS[classes] / COUNTS[classes].sum())


@pytest.mark.parametrize("classes", COUNTS)
def test_resampling_reaches_the_ratio(classes: int) -> None:
    labels = labels_of(COUNTS[classes])
    counts = COUNTS[classes]
    down = np.bincount(labels[made("downsample", classes, ratio=2).sample(labels, np.random.default_rng(0))[0]])
    np.testing.assert_array_equal(down, np.minimum(counts, 2 * counts.min()))
    up_rows = made("upsample", classes).sample(labels, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(np.bincount(labels[up_rows]), np.full(classes, counts.max()))
    assert set(up_rows) == set(range(len(labels)))
    assert len(set(made("downsample", classes).sample(labels, np.random.default_rng(0))[0])) == classes * counts.min()


def test_the_articles_reweighting_keeps_the_expected_loss_while_ham_weighs_twice_as_much_as_spam() -> None:
    """Half of ham at weight 2, and the mirror: spam twice at weight 1/2."""
    counts = np.array([400, 60])
    labels = labels_of(counts)
    for name, parameters, sizes in (
        ("downsample_upweight", {"keep": 0.5}, [200, 60]),
        ("upsample_downweight", {"repeats": 2}, [400, 120]),
    ):
        rows, weights = build(name, counts, ["ham", "spam"], parameters).sample(labels, np.random.default_rng(0))
        assert np.bincount(labels[rows]).tolist() == sizes
        ham, spam = (set(weights[labels[rows] == label]) for label in (0, 1))
        assert len(ham) == len(spam) == 1 and ham.pop() == 2 * spam.pop()
        np.testing.assert_allclose(weighted_share(labels[rows], weights, None, 2), counts / counts.sum())


def test_bootstrap_repeats_are_drawn_with_replacement_beside_every_message() -> None:
    labels = labels_of(np.array([900, 100]))
    sample = build("upsample", np.array([900, 100]), ["ham", "spam"], {"bootstrap": True}).sample
    rows, weights = sample(labels, np.random.default_rng(0))
    times = np.bincount(rows, minlength=1000)
    assert np.bincount(labels[rows]).tolist() == [900, 900] and set(weights) == {1.0}
    assert times.min() == 1 and set(times[labels == 0]) == {1}
    # 800 draws of 100 messages: the extra copies of a message are binomial, not 8 each.
    assert 4 < times[labels == 1].var() < 13


def test_weights_on_balanced_data() -> None:
    counts = np.array([900, 100])
    weighted = build("class_weight", counts, ["ham", "spam"], {"weights": {"ham": 0.25, "spam": 0.75}, "ratio": 1})
    plain = build("downsample", counts, ["ham", "spam"], {"ratio": 1})
    samples = [each.sample(labels_of(counts), np.random.default_rng(0))[0] for each in (weighted, plain)]
    np.testing.assert_array_equal(*samples)
    assert weighted.class_weights.tolist() == [0.25, 0.75]
    inverse = build("class_weight", counts, ["ham", "spam"], {"weights": "inverse", "ratio": 1})
    assert inverse.class_weights.tolist() == [1, 1]


def test_equal_alphas_scale_the_focal_loss_and_inverse_ones_are_class_weights() -> None:
    logits, labels = torch.randn(12, 2, dtype=torch.float64), torch.arange(12) % 2
    counts = np.array([90, 10])
    half, plain, inverse = (
        build("focal", counts, ["ham", "spam"], parameters).loss(logits, labels, torch.ones(12), 0.0)
        for parameters in ({"alpha": {"ham": 0.5, "spam": 0.5}}, {}, {"alpha": "inverse"})
    )
    torch.testing.assert_close(half, plain / 2)
    torch.testing.assert_close(inverse, plain * torch.tensor(inverse_frequency(counts))[labels])


def test_inverse_frequency_on_the_published_counts() -> None:
    np.testing.assert_allclose(inverse_frequency(np.array([4827, 747])), [0.577, 3.731], atol=5e-4)
    assert math.isclose(float((inverse_frequency(COUNTS[8]) * COUNTS[8]).sum() / COUNTS[8].sum()), 1)


def test_class_weights_declare_the_prior_they_train_for() -> None:
    given_weights = build("class_weight", np.array([866, 134]), ["ham", "spam"], {"weights": {"ham": 0.576, "spam": 10.0}})
    share = weighted_share(labels_of(np.array([866, 134])), np.ones(1000), given_weights.class_weights, 2)
    declared = given_weights.declared_prior(share)
    assert declared is not None and math.isclose(declared[1], 0.73, abs_tol=0.01)
    inverse = build("class_weight", np.array([866, 134]), ["ham", "spam"], {"weights": "inverse"})
    np.testing.assert_allclose(
        weighted_share(labels_of(np.array([866, 134])), np.ones(1000), inverse.class_weights, 2), [0.5, 0.5]
    )


def test_bias_init_starts_at_the_entropy_of_the_prior() -> None:
    prior = np.array([0.866, 0.134])
    head = torch.nn.Linear(7, 2)
    build("bias_init", (1000 * prior).astype(int), ["ham", "spam"], {}).head(head)
    logits = head(torch.randn(1000, 7))
    loss = functional.cross_entropy(logits, torch.from_numpy(labels_of((1000 * prior).astype(int))))
    assert math.isclose(loss.item(), -(prior * np.log(prior)).sum(), abs_tol=1e-3)
    assert math.isclose(loss.item(), 0.394, abs_tol=1e-3)


@pytest.mark.parametrize(
    ("technique", "parameters", "words"),
    [
        ("class_weight", {"weights": {"ham": 1.0}}, "misses the class 'spam'"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": -1}}, "of spam must be a number above 0"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": 0}}, "above 0"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": math.nan}}, "above 0"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": True}}, "above 0"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": "10"}}, "above 0"),
        ("class_weight", {"weights": {"ham": 1.0, "spam": 2, "egg": 1}}, "names the class 'egg'"),
        ("class_weight", {"weights": "inverted"}, "must be 'inverse'"),
        ("class_weight", {"weights": [1, 2]}, "a number for each class"),
        ("class_weight", {}, "needs the parameter 'weights'"),
        ("class_weight", {"weights": "inverse", "ratio": 0}, "class_weight.ratio must be a number above 0"),
        ("upsample", {"bootstrap": 1}, "upsample.bootstrap must be true or false, not 1"),
        ("downsample_upweight", {"keep": 1.5}, "downsample_upweight.keep must be a number above 0 and at most 1"),
        ("downsample_upweight", {"keep": 0.5, "ratio": 2}, "takes ratio or keep, not both"),
        ("upsample_downweight", {"repeats": 0.5}, "of at least 1"),
        ("upsample_downweight", {"repeats": 2, "ratio": 2}, "takes ratio or repeats, not both"),
        ("focal", {"alpha": "inverted"}, "focal.alpha must give a number for each class"),
        ("focal", {"gamma": -1}, "at least 0"),
        ("focal", {"alpha": {"spam": 1.5}}, "at most 1"),
        ("focal", {"alpha": 0.25}, "a number for each class"),
        ("downsample", {"ratio": 0}, "above 0"),
        ("upsample", {"ratio": math.inf}, "above 0"),
        ("effective_number", {"beta": 1}, "at least 0 and below 1"),
        ("logit_adjust", {"tau": 0}, "above 0"),
        ("ldam", {"margin": -1}, "above 0"),
        ("ldam", {"deferred_from": 2}, "from 0 to 1"),
        ("lade", {"alpha": True}, "above 0"),
        ("augment", {"strength": 2}, "at most 1"),
        ("down_and_upsample", {"ratio": 0.5}, "of at least 1"),
        ("smote", {"neighbours": 0}, "whole number"),
        ("rose", {"shrinkage": "1"}, "above 0"),
        ("one_class", {"trained_on": "spma"}, "did you mean 'spam'"),
        ("one_class", {"nu": 1.5}, "at most 1"),
        ("bayes", {}, "unknown technique 'bayes'"),
        ("focall", {}, "did you mean 'focal'"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_in_words(technique: str, parameters: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(technique, np.array([80, 20]), ["ham", "spam"], parameters)


def test_smote_needs_a_neighbour() -> None:
    with pytest.raises(UserError, match="2 training messages of each class; spam has 1"):
        build("smote", np.array([80, 1]), ["ham", "spam"], {})


def test_effective_number_between_no_weights_and_inverse_frequency() -> None:
    counts = np.array([3162, 457])
    for beta, ratio in {0.999: 2.6, 0.9999: 6.1}.items():
        weights = build("effective_number", counts, ["ham", "spam"], {"beta": beta}).class_weights
        assert math.isclose(weights.sum(), 2) and math.isclose(weights[1] / weights[0], ratio, abs_tol=0.05)
    np.testing.assert_array_equal(build("effective_number", counts, ["ham", "spam"], {"beta": 0}).class_weights, [1, 1])
    nearly = build("effective_number", counts, ["ham", "spam"], {"beta": 1 - 1e-12}).class_weights
    assert math.isclose(nearly[1] / nearly[0], 3162 / 457, rel_tol=1e-3)


@given(logit_rows)
@settings(max_examples=50, deadline=None)
def test_logit_adjustment_at_tau_1_is_balanced_softmax(rows: list[list[float]]) -> None:
    """Ren et al. (2007.10740), equation 4: n_y exp(z_y) / sum of n_c exp(z_c)."""
    counts = np.array([50, 30, 20])
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.arange(len(rows)) % 3
    scaled = torch.tensor(counts) * torch.exp(logits)
    expected = -torch.log(scaled[torch.arange(len(rows)), labels] / scaled.sum(dim=1))
    technique = build("logit_adjust", counts, names(3), {})
    torch.testing.assert_close(technique.loss(logits, labels, torch.ones(len(rows)), 0.0), expected)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjustment_declares_its_prior(tau: float) -> None:
    share = np.array([0.8, 0.15, 0.05])
    declared = build("logit_adjust", 1000 * share, names(3), {"tau": tau}).declared_prior(share)
    np.testing.assert_allclose(declared, share ** (1 - tau) / (share ** (1 - tau)).sum())


def test_ldam_margins_and_deferred_weights() -> None:
    counts = np.array([1600, 100])
    technique = build("ldam", counts, ["ham", "spam"], {"margin": 0.5, "scale": 30.0, "deferred_from": 0.5})
    logits = torch.tensor([[3.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    early = technique.loss(logits, labels, torch.ones(2, dtype=torch.float64), 0.49)
    # n^(-1/4) is 1/6.32 and 1/3.16: the margins are 0.25 and 0.5, times the scale 7.5 and 15.
    torch.testing.assert_close(early[0], torch.log1p(torch.exp(torch.tensor(1.0 - (3.0 - 7.5), dtype=torch.float64))))
    torch.testing.assert_close(early[1], torch.log1p(torch.exp(torch.tensor(3.0 - (1.0 - 15.0), dtype=torch.float64))))
    late = technique.loss(logits, labels, torch.ones(2, dtype=torch.float64), 0.5)
    np.testing.assert_allclose((late / early).numpy(), inverse_frequency(counts))


def test_a_normalised_head_gives_scaled_cosines() -> None:
    head = build("ldam", COUNTS[3], names(3), {"scale": 30.0}).head(torch.nn.Linear(5, 3))
    features = torch.randn(4, 5)
    logits = head(features)
    torch.testing.assert_close(logits, 30 * functional.cosine_similarity(features[:, None], head.weight[None], dim=2))
    torch.testing.assert_close(logits, head(7 * features))
    assert not head.bias.requires_grad and head.bias.abs().max() == 0


def lade_by_the_paper(logits: np.ndarray, labels: np.ndarray, prior: np.ndarray, alpha: float, penalty: float) -> float:
    """Equations 14 to 16 of 2012.00321, loop by loop."""
    classes = len(prior)
    adjusted = logits + np.log(prior)
    cross_entropy = np.mean([-adjusted[i, y] + np.log(np.exp(adjusted[i]).sum()) for i, y in enumerate(labels)])
    total = 0.0
    for c in range(classes):
        of_class = [logits[i, c] for i, y in enumerate(labels) if y == c]
        if not of_class:
            continue
        under_uniform = np.mean([(1 / classes) / prior[y] * np.exp(logits[i, c]) for i, y in enumerate(labels)])
        total += prior[c] * (-np.mean(of_class) + np.log(under_uniform) + penalty * np.log(under_uniform) ** 2)
    return float(cross_entropy + alpha * total)


@given(st.integers(0, 10_000), st.floats(0.01, 1), st.floats(0.01, 1))
@settings(max_examples=50, deadline=None)
def test_lade_is_the_papers_equations(seed: int, alpha: float, penalty: float) -> None:
    rng = np.random.default_rng(seed)
    counts = np.array([60, 30, 10])
    logits, labels = 3 * rng.normal(size=(12, 3)), rng.integers(3 - seed % 2, size=12)
    technique = build("lade", counts, names(3), {"alpha": alpha, "penalty": penalty})
    found = technique.loss(torch.from_numpy(logits), torch.from_numpy(labels), torch.ones(12, dtype=torch.float64), 0.0).mean()
    assert math.isclose(found.item(), lade_by_the_paper(logits, labels, counts / counts.sum(), alpha, penalty), rel_tol=1e-9)


@pytest.mark.parametrize("classes", COUNTS)
def test_balanced_batches_draw_every_class_alike(classes: int) -> None:
    labels = labels_of(COUNTS[classes])
    drawn = np.concatenate(
        [
            labels[np.concatenate(made("balanced_sampler", classes).batches(np.ones(len(labels)), labels, 16, rng))]
            for rng in map(np.random.default_rng, range(40))
        ]
    )
    share = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(share, 1 / classes, atol=4 * math.sqrt(1 / classes / len(drawn)))
    one = made("balanced_sampler", classes).batches(np.ones(len(labels)), labels, 16, np.random.default_rng(0))
    other = made("balanced_sampler", classes).batches(np.ones(len(labels)), labels, 16, np.random.default_rng(1))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))


def test_down_and_upsampling_keep_the_size_and_reach_the_ratio() -> None:
    labels = labels_of(COUNTS[8])
    for ratio in (1, 2, 10):
        rows, _ = made("down_and_upsample", 8, ratio=ratio).sample(labels, np.random.default_rng(0))
        counts = np.bincount(labels[rows])
        assert abs(len(rows) - len(labels)) <= 4 and math.isclose(counts.max() / counts.min(), ratio, rel_tol=0.1)
    rows, _ = made("down_and_upsample", 8, ratio=1000).sample(labels, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[rows]), COUNTS[8])


def test_augmentation_changes_about_as_much_as_asked() -> None:
    text = " ".join(f"word{number}" for number in range(20))
    changed = [
        sum(one != other for one, other in zip(text.split(), found.split(), strict=False)) + 20 - len(found.split())
        for found in made("augment", strength=0.1).texts([text] * 200, np.ones(200, bool), np.random.default_rng(0))
    ]
    assert np.mean([each > 0 for each in changed]) > 0.9
    assert next(iter(made("augment").texts(["", "a", "no"], np.ones(3, bool), np.random.default_rng(0)))) == ""
