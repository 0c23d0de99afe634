"""params.yaml and the techniques in it: what is wrong is named in one line before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ballast.evaluation import rules
from stages.store import production_sections
from stages.store.files import read_json, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from tests.project import ROOT, Project, yaml

PARAMS = Path("params.yaml")


def test_the_file_of_the_repository_is_read_whole() -> None:
    written = yaml.load(ROOT / PARAMS)
    read = read_params(ROOT / PARAMS).model_dump(by_alias=True)
    assert {section: set(values) for section, values in read.items()} == {
        section: set(values) for section, values in written.items()
    }
    assert read["ingest"]["fractions"] == {"train": 0.7, "validation": 0.1, "test": 0.2}
    assert read["techniques"] == written["techniques"]


# Edits of params.yaml and what the error says.
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown section": ({"trian": {}}, ("unknown key 'trian'", "did you mean 'train'?")),
    "unknown key": ({"train.epoch": 3}, ("unknown key 'train.epoch'", "did you mean 'epochs'?", "learning_rate")),
    "unknown key, deeper": (
        {"ingest.fractions.tests": 0.2},
        ("'ingest.fractions.tests'", "did you mean 'test'?", "known: test, train, validation"),
    ),
    "unknown key of a section with an alias": (
        {"validate.minimum_counts": 3},
        ("'validate.minimum_counts'", "did you mean 'minimum_count'?"),
    ),
    "unknown key of hub": ({"ingest.hub": {"nam": "x"}}, ("'ingest.hub.nam'", "did you mean 'name'?")),
    "unknown source": ({"ingest.source": "sms"}, ("ingest.source", "'sms_spam'", "'parquet'", "found 'sms'")),
    "word for a number": ({"train.epochs": "three"}, ("train.epochs", "integer", "found 'three'")),
    "part of a whole number": ({"train.batch_size": 1.5}, ("train.batch_size", "integer", "found 1.5")),
    "word for a switch": ({"ingest.deduplicate": "no way"}, ("ingest.deduplicate", "boolean", "found 'no way'")),
    "number for a path": ({"ingest.path": 7}, ("ingest.path", "string", "found 7")),
    "list for a mapping": ({"ingest.fractions": [0.7, 0.1, 0.2]}, ("ingest.fractions", "found [0.7, 0.1, 0.2]")),
    "nothing for a section": ({"train": None}, ("train", "found None")),
    "zero epochs": ({"train.epochs": 0}, ("train.epochs", "greater than or equal to 1", "found 0")),
    "negative rate": ({"train.learning_rate": -0.1}, ("train.learning_rate", "greater than 0", "found -0.1")),
    "rate not a number": ({"train.learning_rate": float("nan")}, ("train.learning_rate", "found nan")),
    "decay not finite": ({"train.weight_decay": float("inf")}, ("train.weight_decay", "found inf")),
    "tolerance of a former version": (
        {"select.tolerance": 0.01},
        ("select: tolerance is no longer a key", "one_standard_error"),
    ),
    "place of a former version": ({"select.at": "corrected"}, ("select: at is no longer a key", "operating point")),
    "fractions that miss some": (
        {"ingest.fractions": {"train": 0.7, "validation": 0.1, "test": 0.1}},
        ("ingest.fractions", "sum to 1", "0.9"),
    ),
    "an empty split": (
        {"ingest.fractions": {"train": 0.8, "validation": 0.2, "test": 0.0}},
        ("ingest.fractions.test", "greater than 0", "found 0.0"),
    ),
    "a single fold": (
        {"ingest.fractions": {"train": 0.1, "validation": 0.7, "test": 0.2}},
        ("ingest.fractions", "validation 0.7 and test 0.2 give 1 fold,", "expected 2 to 1,000 folds"),
    ),
    "too many folds": (
        {"ingest.fractions": {"train": 0.7999, "validation": 0.0001, "test": 0.2}},
        ("ingest.fractions", "give 8,000 folds", "expected 2 to 1,000 folds"),
    ),
    "trainings nowhere": ({"nodes.train": "slurm"}, ("nodes.train", "'here', 'ray' or 'kubernetes'", "found 'slurm'")),
    "part of GPUs above one": ({"nodes.gpus": 1.5}, ("nodes: gpus is 1.5", "whole GPUs")),
    "part of a GPU for a pod": (
        {"nodes.train": "kubernetes", "nodes.gpus_of": {"focal": 0.5}},
        ("nodes: gpus_of.focal is 0.5", "on Kubernetes only whole GPUs"),
    ),
    "GPUs for no entry": ({"nodes.gpus_of": {"focl": 1}}, ("nodes.gpus_of names 'focl'", "did you mean 'focal'?")),
    "a wait that has no end": ({"nodes.wait_minutes": -1}, ("nodes.wait_minutes", "found -1")),
    "a deployment without its flow": ({"nodes.deployment": "node"}, ("nodes.deployment", "found 'node'")),
    "prior that misses some": ({"production.prior": {"ham": 0.5, "spam": 0.4}}, ("production", "sum to 1", "0.9")),
    "share above one": (
        {"production.prior": {"ham": -0.5, "spam": 1.5}},
        ("production.prior", "ham", "greater than 0", "found -0.5"),
    ),
    "word for a prior": ({"production.prior": "dta"}, ("production.prior", "data", "found 'dta'")),
    "expected prior": ({"validate.expected_prior": {"ham": 0.8, "spam": 0.1}}, ("expected_prior", "sum to 1", "0.9")),
    "unknown key of the operating point": ({"operating_point.cost": {}}, ("'operating_point.cost'", "did you mean 'costs'?")),
    "unknown rule": ({"operating_point.rule": "f2"}, ("operating_point.rule", "'macro_f1'", "'budget'", "found 'f2'")),
    "costs that are not there": ({"operating_point.rule": "cost"}, ("operating_point", "rule cost needs costs, which is null")),
    "floor that is not there": ({"operating_point.rule": "precision"}, ("operating_point", "needs precision, which is null")),
    "budget that is not there": ({"operating_point.rule": "budget"}, ("operating_point", "needs budget, which is null")),
    "recall that is not there": ({"operating_point.rule": "recall"}, ("operating_point", "needs recall, which is null")),
    "beta that is not there": (
        {"operating_point.rule": "f_beta"},
        ("operating_point", "rule f_beta needs beta, which is null"),
    ),
    "recall above one": ({"operating_point.recall": 1.5}, ("operating_point.recall", "less than or equal to 1", "1.5")),
    "beta of zero": ({"operating_point.beta": 0}, ("operating_point.beta", "greater than 0", "found 0")),
    "a certain guarantee": ({"operating_point.guarantee": 1}, ("operating_point.guarantee", "less than 1", "found 1")),
    "a guarantee of no limit": (
        {"operating_point.guarantee": 0.95},
        ("operating_point", "guarantee needs a rule with a limit (precision, recall, budget); rule f1 has none"),
    ),
    "a review of nothing": ({"operating_point.review": {}}, ("operating_point.review", "either budget or cost")),
    "two kinds of review": (
        {"operating_point.review": {"budget": 5, "cost": 1}},
        ("operating_point.review", "either budget or cost, such as {budget: 50}"),
    ),
    "a review of more than all": (
        {"operating_point.review": {"budget": 10_001}},
        ("operating_point.review", "less than or equal to 10000", "found 10001"),
    ),
    "an unknown review": ({"operating_point.review": {"costs": 5}}, ("operating_point.review.costs", "did you mean 'cost'?")),
    "a cost of review without costs": (
        {"operating_point.review": {"cost": 2}},
        ("operating_point", "review.cost needs rule cost", "the rule is f1"),
    ),
    "floor of zero": ({"operating_point.precision": 0}, ("operating_point.precision", "greater than 0", "found 0")),
    "floor above one": ({"operating_point.precision": 1.5}, ("operating_point.precision", "less than or equal to 1", "1.5")),
    "floor not a number": ({"operating_point.precision": float("nan")}, ("operating_point.precision", "found nan")),
    "negative budget": ({"operating_point.budget": -1}, ("operating_point.budget", "greater than or equal to 0", "found -1")),
    "budget of all": ({"operating_point.budget": 10_000}, ("operating_point.budget", "less than 10000", "found 10000")),
    "negative cost": (
        {"operating_point.costs": {"ham": {"spam": -1}, "spam": {"ham": 1}}},
        ("operating_point.costs.ham.spam", "greater than or equal to 0", "found -1"),
    ),
    "cost not finite": (
        {"operating_point.costs": {"ham": {"spam": float("inf")}}},
        ("operating_point.costs.ham.spam", "finite", "found inf"),
    ),
    "costs as a list": ({"operating_point.costs": [1, 2]}, ("operating_point.costs", "dictionary", "found [1, 2]")),
    "constraint not a number": (
        {"select.constraints": {"spam.precision": float("nan")}},
        ("select.constraints.spam.precision", "found nan"),
    ),
    "unknown rule of selection": ({"select.rule": "argmax"}, ("select.rule", "'one_standard_error'", "found 'argmax'")),
    "no process": ({"train.processes": 0}, ("train.processes", "auto or a whole number of at least 1, not 0")),
    "word for processes": ({"train.processes": "all"}, ("train.processes", "auto or a whole number", "not 'all'")),
    "checkpoints all the time": ({"train.checkpoint_minutes": 0}, ("train.checkpoint_minutes", "greater than 0", "found 0")),
    "seed twice": ({"train.seeds": [1, 1]}, ("seeds must differ", "[1, 1]")),
    "no seed": ({"train.seeds": []}, ("train.seeds", "at least 1")),
    "seeds left out": ({"train.seeds": None}, ("train.seeds", "list", "found None")),
    "seed out of a list": ({"train.seeds": 0}, ("train.seeds: expected a list of seeds, such as [0] or [0, 1, 2], found 0",)),
    "prior above one": ({"production.prior": {"ham": 0.5, "spam": 0.6}}, ("production", "sum to 1", "1.1")),
    "negative seed": ({"ingest.seed": -1}, ("ingest.seed", "greater than or equal to 0", "found -1")),
    "no technique": ({"techniques": {}}, ("techniques", "at least 1")),
    "technique as a path": ({"techniques": {"../x": {}}}, ("techniques", "'../x'")),
    "parameters as a list": ({"techniques": {"focal": [2.0]}}, ("techniques.focal", "dictionary", "found [2.0]")),
    "no probe": ({"probe.texts": []}, ("probe.texts", "at least 1")),
    "pin that is no sha256": ({"ingest.sha256": "abc"}, ("ingest.sha256", "found 'abc'")),
    "label map to numbers": ({"ingest.label_map": {"ham": 0}}, ("ingest.label_map", "string", "found 0")),
}


@pytest.mark.parametrize(("edits", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named(workspace: Project, edits: dict[str, Any], said: tuple[str, ...]) -> None:
    workspace.edit(edits)
    error = workspace.stage_here("ingest").error
    for words in ("params.yaml: ", *said):
        assert words in error


FILES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "no file": (None, ("no such file", "repository's root")),
    "empty": (b"", ("the file: ", "found None")),
    "a list": (b"- ingest\n", ("found ['ingest']",)),
    "bad YAML": (b"ingest: {source: [\ntrain: 1\n", ("not valid YAML", "line 1", "expected ',' or ']'")),
    "a tab": (b"ingest:\n\tsource: file\n", ("not valid YAML", "line 2")),
    "a key twice": (b"ingest: 1\ningest: 2\n", ("not valid YAML", "duplicate key", "ingest")),
    "not UTF-8": (b"ingest: caf\xe9\n", ("not valid YAML", "utf-8", "0xe9")),
    "two documents": (b"ingest: 1\n---\ntrain: 2\n", ("not valid YAML", "document")),
    "a program": (b"ingest: !!python/object/apply:os.system [ls]\n", ("not valid YAML", "python/object")),
    "a missing section": (b"{}", ("missing key 'ingest'",)),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_a_broken_file_is_named(workspace: Project, content: bytes | None, said: tuple[str, ...]) -> None:
    if content is None:
        (workspace.folder / PARAMS).unlink()
    else:
        workspace.write("params.yaml", content)
    for words in ("params.yaml: ", *said):
        assert words in workspace.stage_here("ingest").error


def test_a_prior_may_name_numbers_and_truth_values(workspace: Project) -> None:
    for prior, expected in ({0: 0.9, 1: 0.1}, ["0", "1"]), ({True: 0.1, False: 0.9}, ["true", "false"]):
        costs = {label: dict.fromkeys(prior, 1) for label in prior}
        workspace.edit({"production.prior": prior, "validate.expected_prior": prior, "operating_point.costs": costs})
        workspace.edit({"operating_point.label": next(iter(prior))})
        read = read_params(workspace.folder / PARAMS)
        assert set(read.operating_point.costs) == {each for row in read.operating_point.costs.values() for each in row}
        assert set(read.operating_point.costs) == set(expected) and read.operating_point.label in expected
        assert set(read.production.prior) == set(read.validate_.expected_prior) == set(expected)


@pytest.mark.parametrize("stage", ["ingest", "techniques"])
def test_a_broken_file_as_a_user_sees_it(workspace: Project, stage: str) -> None:
    workspace.write("params.yaml", b"ingest: {")
    assert workspace.stage(stage).error.startswith("error: params.yaml: not valid YAML")


def test_a_missing_key_is_named(workspace: Project) -> None:
    content = yaml.load(workspace.folder / PARAMS)
    del content["train"]["epochs"]
    with (workspace.folder / PARAMS).open("w") as file:
        yaml.dump(content, file)
    assert "missing key 'train.epochs'" in workspace.stage_here("ingest").error


SPLITS = {name: {"ham": 4 * count, "spam": count} for name, count in {"train": 80, "validation": 0, "test": 20}.items()}
FOLDS = [{"ham": 40, "spam": 10}] * 8
GIVEN = {"technique": "class_weight", "weights": {"ham": 0.5, "spam": 3}}
ENTRIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown technique": (
        {"fcal": {"gamma": 2.0}},
        ("techniques.fcal", "unknown technique 'fcal'", "did you mean 'focal'?", "baseline"),
    ),
    "unknown file": (
        {"mine": {"technique": "focall"}},
        ("techniques.mine", "unknown technique 'focall'", "did you mean 'focal'?"),
    ),
    "file not a name": ({"mine": {"technique": 3}}, ("techniques.mine", "must be a name", "3")),
    "unknown parameter": ({"focal": {"gama": 2.0}}, ("techniques.focal", "unknown parameter 'gama'", "did you mean 'gamma'?")),
    "parameter of none": ({"baseline": {"x": 1}}, ("techniques.baseline", "unknown parameter 'x'", "takes none")),
    "lacking parameter": ({"class_weight": {}}, ("techniques.class_weight", "needs the parameter 'weights'")),
    "weights that miss a class": ({"class_weight": {"weights": {"spam": 10}}}, ("misses the class 'ham'", "ham, spam")),
    "weights of a stranger": (
        {"class_weight": {"weights": {"ham": 1, "spm": 2}}},
        ("names the class 'spm'", "did you mean 'spam'?"),
    ),
    "negative weight": ({"class_weight": {"weights": {"ham": 1, "spam": -2}}}, ("spam must be a number above 0", "-2")),
    "zero weight": ({"class_weight": {"weights": {"ham": 0, "spam": 2}}}, ("ham must be a number above 0", "0")),
    "word as a weight": ({"class_weight": {"weights": {"ham": "1", "spam": 2}}}, ("ham must be a number above 0", "'1'")),
    "true as a weight": ({"class_weight": {"weights": {"ham": True, "spam": 2}}}, ("ham must be a number above 0", "True")),
    "nan as a weight": (
        {"class_weight": {"weights": {"ham": float("nan"), "spam": 2}}},
        ("ham must be a number above 0", "nan"),
    ),
    "endless weight": (
        {"class_weight": {"weights": {"ham": float("inf"), "spam": 2}}},
        ("ham must be a number above 0", "inf"),
    ),
    "unknown rule": ({"class_weight": {"weights": "invrse"}}, ("'inverse'", "'invrse'")),
    "list of weights": ({"class_weight": {"weights": [1, 2]}}, ("number for each class", "[1, 2]")),
    "negative gamma": ({"focal": {"gamma": -1}}, ("techniques.focal", "gamma", "-1")),
    "ratio of zero": ({"downsample": {"ratio": 0}}, ("techniques.downsample", "ratio", "above 0")),
}


def with_counts(workspace: Project) -> None:
    write_json(workspace.folder / PROJECT.ingest, {"labels": {"ham": 400, "spam": 100}, "splits": SPLITS, "folds": FOLDS})


@pytest.mark.parametrize(("entries", "said"), ENTRIES.values(), ids=ENTRIES)
def test_a_wrong_technique_is_named_and_the_earlier_cards_stay(workspace: Project, entries: Any, said: tuple[str, ...]) -> None:
    with_counts(workspace)
    workspace.edit({"techniques": {"baseline": {}, "mine": GIVEN}})
    assert workspace.stage_here("techniques").code == 0
    workspace.write("models/mine/0/model.safetensors", b"weights")
    before = {path: path.read_bytes() for path in (workspace.folder / PROJECT.cards).iterdir()}
    workspace.edit({"techniques": {"baseline": {}, **entries}})
    error = workspace.stage_here("techniques").error
    for words in ("params.yaml: techniques.", *said):
        assert words in error
    assert {path: path.read_bytes() for path in (workspace.folder / PROJECT.cards).iterdir()} == before
    assert (workspace.folder / PROJECT.models / "mine/0/model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        pytest.param({"select.metric": "marco_f1"}, ("select.metric", "'marco_f1'", "did you mean 'macro_f1'?"), id="metric"),
        pytest.param({"select.metric": "eggs.f1"}, ("select.metric", "'eggs.f1'", "ham.f1"), id="metric of a stranger"),
        pytest.param({"select.constraints": {"spam.precison": 0.9}}, ("did you mean 'spam.precision'?",), id="constraint"),
        pytest.param({"operating_point.label": "spm"}, ("operating_point.label", "'spm'", "did you mean 'spam'?"), id="label"),
        pytest.param(
            {"operating_point.rule": "cost", "operating_point.costs": {"ham": {"spam": 10}}},
            ("operating_point.costs", "misses the cost of predicting 'ham' for 'spam'"),
            id="missing cost",
        ),
        pytest.param(
            {"operating_point.costs": {"ham": {"spam": 10}, "spam": {"ham": 1}, "eggs": {"ham": 1}}},
            ("operating_point.costs", "names the label 'eggs'", "known: ham, spam"),
            id="costs of a stranger",
        ),
        pytest.param(
            {"operating_point.costs": {"ham": {"spam": 0}, "spam": {"ham": 0}}},
            ("operating_point.costs", "no mistake costs more"),
            id="costs of nothing",
        ),
        pytest.param(
            {"production.prior": {"ham": 0.9, "spma": 0.1}},
            ("production.prior names the class 'spma'", "did you mean 'spam'?"),
            id="prior of a stranger",
        ),
        pytest.param(
            {"production.prior": {"ham": 0.5, "spam": 0.4, "eggs": 0.1}},
            ("names the class 'eggs'", "ham, spam"),
            id="prior of more",
        ),
        pytest.param(
            {"production.prior": {"ham": 1 - 1e-9}},
            ("production.prior misses the class 'spam'", "ham, spam"),
            id="prior that misses a class",
        ),
    ],
)
def test_names_that_only_the_data_can_tell_are_checked_before_training(
    workspace: Project, edits: Any, said: tuple[str, ...]
) -> None:
    with_counts(workspace)
    workspace.edit(edits)
    error = workspace.stage_here("techniques").error
    for words in ("params.yaml: ", *said):
        assert words in error
    assert not (workspace.folder / PROJECT.cards).exists()


def test_a_card_holds_what_its_entry_depends_on_and_no_more(workspace: Project) -> None:
    with_counts(workspace)
    workspace.edit(
        {"techniques": {"focal": {"gamma": 1.0}, "first": GIVEN, "second": {**GIVEN, "weights": "inverse"}, "majority": None}}
    )
    assert workspace.stage_here("techniques").code == 0
    cards = {path.stem: read_json(path) for path in (workspace.folder / PROJECT.cards).iterdir()}
    assert set(cards) == {"focal", "first", "second", "majority"}
    assert cards["first"]["technique"] == cards["second"]["technique"] == "class_weight"
    assert cards["first"]["sources"] == cards["second"]["sources"] and cards["first"] != cards["second"]
    assert cards["first"]["parameters"] == {"weights": GIVEN["weights"]} and cards["majority"]["parameters"] == {}
    assert "ballast/techniques/focal.py" in cards["focal"]["sources"]
    assert not any(name.startswith("ballast/techniques/") and "focal" not in name for name in cards["focal"]["sources"])


def test_what_params_no_longer_name_is_removed_from_disk(workspace: Project) -> None:
    with_counts(workspace)
    workspace.edit({"techniques": {"baseline": {}, "mine": GIVEN}, "train.seeds": [0, 10]})
    kept = [
        "models/mine/0/config.json",
        "models/mine/10/config.json",
        "logits/mine/0.npz",
        "data/samples/mine/0.parquet",
        "evaluations/mine.json",
    ]
    doomed = [
        "models/old/0/config.json",
        "models/mine/1/config.json",
        "logits/mine/1.npz",
        "data/samples/mine/1.parquet",
        "evaluations/old.json",
    ]
    others = [str(PROJECT.messages), "production/deployed/old/model.json", "data/raw/old"]
    for name in [*kept, *doomed, *others]:
        workspace.write(name, b"x")
    assert workspace.stage_here("techniques").code == 0
    assert [name for name in [*kept, *others] if not (workspace.folder / name).is_file()] == []
    assert [name for name in doomed if (workspace.folder / name).exists()] == []


def test_rules_with_a_limit_are_those_of_the_library() -> None:
    assert production_sections.LIMITED == rules.LIMITED
