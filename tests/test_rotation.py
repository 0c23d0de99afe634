"""The rotating validation: what each seed trains on, validates on and tests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ballast.exceptions import UserError
from stages.store.checked import read_arrays, write_table
from stages.store.files import read_json
from stages.store.ingested import training_counts, validation_counts
from stages.store.messages import Messages, read_messages
from stages.store.project import PROJECT
from stages.store.project import Project as ProjectPaths
from tests.project import Project, corpus, workspace

# The last seed validates on the same fold as seed 1.
SEEDS = (0, 1, 9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a technique that samples, trained with several seeds."""
    project = workspace(tmp_path_factory.mktemp("rotation"))
    project.write("messages.csv", corpus({"ham": 300, "spam": 80}, twins=0.3))
    project.edit({"techniques": {"tfidf": {}}, "train.seeds": list(SEEDS)})
    for stage in ("ingest", "techniques"):
        assert project.stage_here(stage).code == 0
    for seed in SEEDS:
        for stage in ("resample", "train"):
            done = project.stage_here(stage, name="tfidf", seed=seed)
            assert done.code == 0, done.stderr
    return project


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_validates_on_its_fold_and_neither_trains_on_it_nor_on_test(trained: Project, seed: int) -> None:
    messages = pd.read_parquet(trained.folder / PROJECT.messages)
    saved = read_arrays(trained.folder / PROJECT.logits / f"tfidf/{seed}.npz")
    sample = pd.read_parquet(trained.folder / PROJECT.samples / f"tfidf/{seed}.parquet")
    validation, test = messages.index[messages["fold"] == seed % 8], messages.index[messages["split"] == "test"]
    assert saved["validation_rows"].tolist() == validation.tolist() and len(saved["validation"]) == len(validation)
    assert saved["test_rows"].tolist() == test.tolist() and len(saved["test"]) == len(test)
    for rows in (sample["row"], saved["train_rows"]):
        assert not set(messages.loc[rows, "group"]) & set(messages.loc[[*validation, *test], "group"])
    assert set(sample["row"]) == set(messages.index) - set(validation) - set(test)
    classes = messages.loc[saved["train_rows"], "label"] == "spam"
    assert saved["train_classes"].tolist() == classes.astype(int).tolist() and len(saved["train"]) == len(classes)


def test_seeds_score_different_messages_and_a_seed_after_the_last_fold_begins_again(trained: Project) -> None:
    rows = {seed: read_arrays(trained.folder / PROJECT.logits / f"tfidf/{seed}.npz")["validation_rows"] for seed in SEEDS}
    assert not set(rows[0]) & set(rows[1])
    np.testing.assert_array_equal(rows[1], rows[9])


def test_counts_of_the_summary_are_those_of_the_table(trained: Project) -> None:
    ingested, messages = read_json(trained.folder / PROJECT.ingest), pd.read_parquet(trained.folder / PROJECT.messages)
    table = Messages(table=messages.assign(**{"class": (messages["label"] == "spam").astype(int)}), names=["ham", "spam"])
    assert table.n_folds == len(ingested["folds"]) == 8
    for seed in SEEDS:
        assert training_counts(ingested, seed).tolist() == table.counts(table.train(seed)).tolist()
        assert list(validation_counts(ingested, [seed]).values()) == table.counts(table.validation(seed)).tolist()
    both = pd.concat([table.validation(0), table.validation(1)])
    assert list(validation_counts(ingested, SEEDS).values()) == table.counts(both).tolist()


def test_a_fixed_validation_split_is_that_of_every_seed() -> None:
    frame = pd.DataFrame({"split": ["train", "validation", "test", "train"], "fold": -1, "class": [0, 1, 0, 1]})
    messages = Messages(table=frame, names=["ham", "spam"])
    assert messages.n_folds == 0
    for seed in SEEDS:
        assert messages.train(seed).index.tolist() == [0, 3]
        assert messages.validation(seed).index.tolist() == [1]
    assert messages.test().index.tolist() == [2]


def test_a_table_of_an_earlier_version_is_named(trained: Project, tmp_path: Path) -> None:
    project = ProjectPaths(tmp_path)
    project.messages.parent.mkdir()
    messages = pd.read_parquet(trained.folder / PROJECT.messages)
    write_table(project.messages, messages.drop(columns="fold"))
    with pytest.raises(UserError, match=r"data/messages.parquet: no column 'fold'.*`dvc repro`"):
        read_messages(["text"], project)
