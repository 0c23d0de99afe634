"""The settings of the encoder that params leave open: the learning rate by trial, the frozen layers by rule."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

import ballast
from ballast.exceptions import UserError
from ballast.models.encoder import n_layers
from ballast.models.frozen_layers import freeze
from ballast.training.learning_rate import FIRST, RATES, climb
from stages.store.encoder_settings import choice_in_words, encoder_settings
from stages.store.files import read_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.studies import read_variants, settings_digest
from tests.project import ROOT, TINY_TRAINING, Project, corpus

AUTO = {"train.learning_rate": "auto", "train.frozen_layers": "auto"}
NOISE = np.random.default_rng(0).normal(0, 1, 400)


@given(st.sampled_from(RATES))
def test_the_climb_finds_the_best_rate_of_a_valley_and_stops_behind_it(best: float) -> None:
    found = climb(lambda rate: np.abs(np.log(rate / best)) + NOISE, NOISE + 100)
    assert found.rate == best
    places = sorted(RATES.index(rate) for rate in found.losses)
    start, end = RATES.index(FIRST), RATES.index(best)
    # Larger rates are tried first, so that one of them precedes a climb down.
    assert set(range(min(start, end - 1), end + 1) if end > start else range(end, start + 1)) - set(places) <= {-1}
    assert len(places) <= abs(end - start) + 3


def test_without_a_clear_gain_the_usual_rate_stays() -> None:
    rng = np.random.default_rng(1)
    noise = {rate: rng.normal(0, 1, 400) for rate in RATES}
    found = climb(lambda rate: noise[rate] - noise[rate].mean() - (0.02 if rate > FIRST else 0), np.full(400, 9.0))
    assert found.rate == FIRST and min(found.losses, key=lambda rate: found.losses[rate]) != FIRST
    assert list(found.losses) == [FIRST, 5e-4, 1e-4]


@pytest.mark.parametrize("useless", [np.inf, 2.0])
def test_the_climb_goes_below_rates_with_which_nothing_is_learned(useless: float) -> None:
    without_model = np.full(10, 2.0)
    found = climb(lambda rate: np.full(10, useless if rate > 5e-5 else 1.0), without_model)
    assert (found.rate, list(found.losses)) == (5e-5, [FIRST, 5e-4, 1e-4, 5e-5, 2e-5])
    assert climb(lambda rate: np.full(10, useless), without_model).rate == FIRST


@pytest.fixture
def ingested(workspace: Project, tiny_encoder: Path) -> Project:
    workspace.write("messages.csv", corpus({"ham": 300, "spam": 90}))
    settings = {f"train.{key}": value for key, value in TINY_TRAINING.items()}
    workspace.edit({**settings, "train.model": str(tiny_encoder), "techniques": {"baseline": {}, "tfidf": {}}, **AUTO})
    assert workspace.stage_here("ingest").code == 0
    return workspace


def test_every_training_has_the_rate_that_was_chosen_without_test_messages(ingested: Project) -> None:
    done = ingested.stage_here("encoder")
    assert done.code == 0, done.stderr
    found = read_json(ingested.folder / PROJECT.encoder)
    losses = {float(rate): loss for rate, loss in found["log_loss"].items()}
    # The tiny encoder has two layers, and random weights need large steps.
    assert (found["frozen_layers"], found["auto"]) == (1, ["learning_rate", "frozen_layers"])
    assert found["learning_rate"] > FIRST and losses[found["learning_rate"]] == min(losses.values())
    assert f"learning_rate: {found['learning_rate']:g}, by log loss on the validation messages of seed 0" in done.stderr
    assert "frozen_layers: 1, all but the highest layer" in done.stderr

    for stage, arguments in (("techniques", {}), ("resample", {"name": "baseline", "seed": 0})):
        assert ingested.stage_here(stage, **arguments).code == 0
    done = ingested.stage_here("train", name="baseline", seed=0)
    assert done.code == 0, done.stderr
    manifest = json.loads((ingested.folder / "models/baseline/0/manifest.json").read_text())
    trained = manifest["params"]["train"]
    assert (trained["learning_rate"], trained["frozen_layers"]) == (found["learning_rate"], 1)
    assert ballast.load(ingested.folder / "models/baseline/0").labels == ["ham", "spam"]

    # The test set decides nothing.
    messages = pd.read_parquet(ingested.folder / PROJECT.messages)
    messages.loc[messages["split"] == "test", "text"] = "something else"
    ingested.write(str(PROJECT.messages), messages)
    assert ingested.stage_here("encoder").code == 0
    again = read_json(ingested.folder / PROJECT.encoder)
    # The frozen layers pass other batches, which round otherwise.
    assert again["learning_rate"] == found["learning_rate"]
    assert again["log_loss"] == pytest.approx(found["log_loss"], rel=1e-4)


def test_numbers_in_params_are_kept_and_load_nothing(ingested: Project) -> None:
    ingested.edit({"train.learning_rate": 0.01, "train.frozen_layers": 0})
    listing = "import sys; from stages.encoder import main; main(); print(*sys.modules)"
    done = ingested.run(sys.executable, "-c", listing)
    assert done.code == 0 and done.stderr == ""
    assert {"torch", "transformers"} & set(done.stdout.split()) == set()
    found = read_json(ingested.folder / PROJECT.encoder)
    assert found == {"learning_rate": 0.01, "frozen_layers": 0, "auto": [], "log_loss": {}}


def test_the_report_says_what_was_chosen_and_nothing_if_nothing_was_open(ingested: Project) -> None:
    content = {"learning_rate": 0.001, "frozen_layers": 1, "auto": ["learning_rate"], "log_loss": {"0.001": 0.5}}
    ingested.write(str(PROJECT.encoder), content)
    with contextlib.chdir(ingested.folder):
        assert choice_in_words() == "learning_rate: 0.001, by log loss on the validation messages of seed 0 (0.001 0.5000)."
    ingested.edit({"train.learning_rate": 0.001, "train.frozen_layers": 1})
    with contextlib.chdir(ingested.folder):
        assert choice_in_words() == ""


def test_studies_use_the_choice_as_if_params_stated_it(ingested: Project) -> None:
    ingested.write("studies/claims/params.yaml", (ROOT / "studies/claims/params.yaml").read_bytes())
    chosen = {"learning_rate": 0.005, "frozen_layers": 1}
    ingested.write(str(PROJECT.encoder), {**chosen, "auto": list(chosen), "log_loss": {}})
    with contextlib.chdir(ingested.folder):
        left_open, digest = read_variants("claims"), settings_digest()
    ingested.edit({f"train.{key}": value for key, value in chosen.items()})
    with contextlib.chdir(ingested.folder):
        assert (read_variants("claims"), settings_digest()) == (left_open, digest)
    assert {variant.params.train.learning_rate for variant in left_open.values()} == {0.005}


def test_one_of_the_two_can_be_left_open(ingested: Project) -> None:
    ingested.edit({"train.learning_rate": 0.01})
    assert ingested.stage_here("encoder").code == 0
    found = read_json(ingested.folder / PROJECT.encoder)
    assert found == {"learning_rate": 0.01, "frozen_layers": 1, "auto": ["frozen_layers"], "log_loss": {}}


def test_a_training_without_the_choice_names_the_file(ingested: Project) -> None:
    for stage, arguments in (("techniques", {}), ("resample", {"name": "baseline", "seed": 0})):
        assert ingested.stage_here(stage, **arguments).code == 0
    error = ingested.stage_here("train", name="baseline", seed=0).error
    assert f"{PROJECT.encoder}: no such file" in error


def test_a_choice_that_was_made_for_other_params_is_not_used(ingested: Project) -> None:
    ingested.edit({"train.learning_rate": 0.01, "train.frozen_layers": 0})
    assert ingested.stage_here("encoder").code == 0
    ingested.edit({"train.learning_rate": "auto"})
    with contextlib.chdir(ingested.folder), pytest.raises(UserError, match=r"train.learning_rate is auto .* run `dvc repro`"):
        encoder_settings(read_params().train)


def test_an_encoder_that_cannot_be_loaded_is_named(ingested: Project) -> None:
    ingested.edit({"train.model": "nowhere"})
    assert "params.yaml: train.model 'nowhere' cannot be loaded" in ingested.stage_here("encoder").error


def test_layers_that_share_their_weights_are_one_layer(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8, "embedding_size": 8}
    network = AutoModel.from_config(AutoConfig.for_model("albert", **sizes, vocab_size=20))
    network.save_pretrained(tmp_path)
    assert n_layers(str(tmp_path)) == 1
    freeze(network, n_layers(str(tmp_path)))
    with pytest.raises(UserError, match="frozen_layers must be at most 1"):
        freeze(network, 2)
