"""Mistakes, doubtful labels, neighbours and slices: the functions, the stage, and the section of the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballast.evaluation import error_analysis
from ballast.evaluation.bootstrap import wilson_interval
from ballast.evaluation.error_analysis import (
    MINIMUM_IN_SLICE,
    beats_majority,
    class_metrics,
    most_confident_errors,
    nearest_neighbours,
    slice_metrics,
    slices,
    suspected_label_errors,
)
from stages.pages.html import environment
from stages.pages.report.errors_view import NEIGHBOUR_CHARACTERS, SHOWN_CHARACTERS, errors, rows_of
from stages.pages.report.view import HERE
from stages.store.files import read_json
from stages.store.messages import read_messages
from stages.store.project import PROJECT
from tests.project import ROOT, Project, corpus, workspace

HOSTILE = "<script>broken = 1</script></style></td></table>\u202e\u2066{{ 7 * 7 }} " + "x" * 10_000


def test_mistakes_are_wrong_and_the_surest_first() -> None:
    posterior = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.2, 0.8]])
    classes = np.array([1, 0, 0, 1, 0])
    assert most_confident_errors(posterior, classes, 5).tolist() == [0, 2, 4], "ties stay in the order of the messages"
    assert most_confident_errors(posterior, classes, 1).tolist() == [0]
    assert most_confident_errors(posterior[[1, 3]], classes[[1, 3]], 5).tolist() == []


def test_only_what_always_answers_the_largest_class_is_no_better_than_that() -> None:
    classes = np.repeat([0, 1], [8, 2])
    assert not beats_majority(np.zeros(10, dtype=int), classes)
    assert not beats_majority(1 - classes, classes)
    assert beats_majority(np.repeat([0, 1], [9, 1]), classes)


def test_swapped_labels_are_the_suspects() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [400, 80, 40])
    logits = 2 * rng.normal(size=(len(truth), 3)) + 7 * np.eye(3)[truth]
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure = np.flatnonzero(posterior[np.arange(len(truth)), truth] > 0.99)
    swapped = rng.choice(sure, 12, replace=False)
    given_labels = truth.copy()
    given_labels[swapped] = (truth[swapped] + 1) % 3
    rows, quality, issues = suspected_label_errors(posterior, given_labels)
    assert set(rows[:12].tolist()) == set(swapped.tolist()) and issues[:12].mean() > 0.8
    assert quality.tolist() == sorted(quality.tolist())
    assert quality == pytest.approx(posterior[rows, given_labels[rows]])


def test_labels_that_are_all_likely_have_no_suspects() -> None:
    classes = np.repeat([0, 1], [20, 5])
    rows, quality, issues = suspected_label_errors(np.where(np.eye(2)[classes] > 0, 0.9, 0.1), classes)
    assert len(rows) == len(quality) == len(issues) == 0


def test_neighbours_are_the_same_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    training = corpus({"a": 60, "b": 40})["text"].tolist()
    texts = [training[7].upper(), training[30][:25], "zzz qqq"]
    whole_rows, whole = nearest_neighbours(training, texts, 3)
    assert whole_rows.shape == whole.shape == (3, 3)
    assert whole_rows[0, 0] == 7 and whole[0, 0] == pytest.approx(1), "case does not count"
    assert whole_rows[1, 0] == 30 and (np.diff(whole, axis=1) <= 0).all() and (whole[2] == 0).all()
    monkeypatch.setattr(error_analysis, "COMPARED_AT_ONCE", 9)
    rows, similarity = nearest_neighbours(training, texts, 3)
    assert (rows == whole_rows).all() and similarity == pytest.approx(whole)
    assert nearest_neighbours(training[:2], texts, 3)[0].shape == (3, 2), "no more neighbours than there are messages"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("see http://x.example/a", {"a link"}),
        ("go to WWW.prize", {"a link"}),
        ("at tc-llc.com now", {"a link"}),
        ("well.done, i.e. fine", set()),
        ("Call 0800 542-0578", {"digits", "a phone-like number"}),
        ("Call (0800) 542", {"digits"}),
        ("1,000,000 pounds", {"digits"}),
        ("café", {"non-ASCII"}),
        ("", set()),
    ],
)
def test_what_a_message_holds(text: str, holds: set[str]) -> None:
    with_all = "x1 http://y.example 0123456789 é"
    found = slices([text, with_all, "plain"])
    for name in error_analysis.CHARACTERISTICS:
        assert found[f"with {name}"].tolist() == [name in holds, True, False], name


@given(st.lists(st.text(), min_size=1, max_size=30))
def test_slices_pair_up(texts: list[str]) -> None:
    found = slices(texts)
    assert found["all"].all()
    for name, mask in found.items():
        assert mask.any() and (name == "all" or not mask.all())
        if name.startswith("with "):
            assert (found[name.replace("with ", "without ", 1)] == ~mask).all()
    quarters = [mask for name, mask in found.items() if name.endswith("characters")]
    assert not quarters or (np.sum(quarters, axis=0) == 1).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_metrics_of_a_slice_are_those_of_its_counts(seed: int, seeds: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.4
    predicted = rng.random((seeds, 60)) < rng.random()
    found = class_metrics(predicted, truth, np.arange(60), 0.95)
    assert (found is None) == (truth.sum() < MINIMUM_IN_SLICE)
    if found is None:
        return
    hits = (predicted & truth).sum()
    recall, precision, f1 = found["recall"], found["precision"], found["f1"]
    assert recall is not None and f1 is not None
    assert recall["value"] == pytest.approx(hits / (seeds * truth.sum()))
    assert (precision is None) == (not predicted.any())
    assert f1["value"] == pytest.approx(2 * hits / (predicted.sum() + seeds * truth.sum()))
    for each in filter(None, found.values()):
        assert 0 <= each["low"] <= each["value"] <= each["high"] <= 1
    if seeds == 1:
        assert (recall["low"], recall["high"]) == pytest.approx(wilson_interval(recall["value"], truth.sum(), 0.95))


def test_near_duplicates_tell_as_much_as_one_message() -> None:
    truth, predicted = np.ones(40, dtype=bool), np.tile([True, True, True, False], 10)[None]
    apart = class_metrics(predicted, truth, np.arange(40), 0.95)
    together = class_metrics(predicted, truth, np.arange(40) // 4, 0.95)
    assert apart is not None and together is not None
    for key in ("recall", "f1"):
        wide, narrow = together[key], apart[key]
        assert wide is not None and narrow is not None and wide["value"] == narrow["value"]
        assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_every_slice_and_class_has_an_entry() -> None:
    classes = np.repeat([0, 1], [30, 5])
    masks = {"all": np.ones(35, dtype=bool), "few": np.arange(35) < 4}
    found = slice_metrics(classes[None], classes, np.arange(35), masks, ["ham", "spam"], 0.95)
    assert found["few"] == {"ham": None, "spam": None} and found["all"]["spam"] is None
    ham = found["all"]["ham"]
    assert ham is not None and ham["recall"] is not None and ham["recall"]["value"] == 1


NAMES = {"tfidf": {}, "tfidf_weak": {"technique": "tfidf", "C": 0.01}, "majority": {}}


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with three techniques, whose stages ran until `errors`."""
    project = workspace(tmp_path_factory.mktemp("errors"))
    table = corpus({"ham": 400, "spam": 120}, noise=0.15)
    table.loc[table.index[::7], "text"] += " http://x.example"
    project.write("messages.csv", table)
    edits = {"techniques": NAMES, "evaluate.resamples": 100, "train.seeds": [0, 1], "report.mistakes": 4}
    project.edit(edits)
    runs: list[tuple[str, dict[str, Any]]] = [("ingest", {}), ("validate", {}), ("techniques", {})]
    for name in NAMES:
        runs += [(stage, {"name": name, "seed": seed}) for seed in (0, 1) for stage in ("resample", "train")]
        runs.append(("evaluate", {"name": name}))
    for stage, arguments in [*runs, ("errors", {})]:
        done = project.stage_here(stage, **arguments)
        assert done.code == 0, (stage, done.stderr)
    return project


def test_the_stage_names_messages_and_holds_no_texts(analysed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(analysed.folder)
    found, messages = read_json(PROJECT.errors), read_messages(["id", "text"])
    table = messages.table
    assert found["counted"] == ["tfidf", "tfidf_weak"] or found["counted"] == ["tfidf"]
    assert not any(text in PROJECT.errors.read_text(encoding="utf-8") for text in table["text"])
    suspects = found["suspects"]["shown"]
    shown = [entry for each in (found["shared"], *found["mistakes"].values()) for entry in each["shown"]]
    assert shown and suspects
    held_out = set(pd.concat([messages.validation(seed) for seed in (0, 1)]).index)
    assert found["suspects"]["covered"] == len(held_out) < found["suspects"]["outside_test"]
    for entry in [*shown, *suspects]:
        row = table.loc[entry["row"]]
        assert (row["id"], row["label"]) == (entry["id"], entry["label"])
        assert entry["row"] in held_out if entry in suspects else row["split"] == "test"
        assert entry["predicted"] != entry["label"]
        near = found["neighbours"][str(entry["row"])]
        assert len(near) == 3 and all(table.loc[each["row"], "split"] == "train" for each in near)
        assert entry["row"] not in {each["row"] for each in near}
        assert all(table.loc[each["row"], "label"] == each["label"] for each in near)
    for name, each in found["mistakes"].items():
        assert len(each["shown"]) == min(4, each["count"]), name
        sure = [entry["probability"] for entry in each["shown"]]
        assert sure == sorted(sure, reverse=True)
    assert found["mistakes"]["majority"]["count"] == found["slices"]["support"]["all"]["spam"]
    counts = [found["mistakes"][name]["count"] for name in found["counted"]]
    assert found["shared"]["count"] <= min(counts)


@pytest.mark.parametrize("show_texts", [True, False])
def test_the_list_to_correct_ranks_all_suspects(analysed: Project, tmp_path: Path, show_texts: bool) -> None:
    shutil.copytree(analysed.folder, tmp_path / "copy")
    project = Project(tmp_path / "copy", ROOT)
    project.edit({"report.show_texts": show_texts})
    assert project.stage_here("errors").code == 0
    found, messages = read_json(project.folder / PROJECT.errors), pd.read_parquet(project.folder / PROJECT.messages)
    listed = pd.read_csv(project.folder / PROJECT.relabel, dtype={"id": str}, keep_default_na=False)
    rows = messages.set_index("id").loc[listed["id"]]
    assert len(listed) == found["suspects"]["count"] and listed["quality"].is_monotonic_increasing
    assert (rows["split"] == "train").all() and (rows["label"] == listed["label"].to_numpy()).all()
    assert (listed["suggested"] != listed["label"]).all()
    assert (listed["text"] == (rows["text"].to_numpy() if show_texts else "")).all()


def test_planted_label_errors_lead_the_list(analysed: Project, tmp_path: Path) -> None:
    """Labels that are swapped in the source are among the most doubtful, and correcting them restores the data."""
    shutil.copytree(analysed.folder, tmp_path / "copy")
    project = Project(tmp_path / "copy", ROOT)
    before = pd.read_parquet(project.folder / PROJECT.messages).set_index("id")
    other = {"ham": "spam", "spam": "ham"}
    clean = pd.read_csv(project.folder / PROJECT.relabel, dtype={"id": str})["id"]
    candidates = before[(before["fold"].isin([0, 1])) & ~before.index.isin(clean)]
    swapped = candidates.groupby("label").head(4).index
    table = before.reset_index()[["text", "label"]]
    table.loc[before.index.isin(swapped), "label"] = table["label"].map(other)
    project.write("messages.csv", table)
    project.edit({"techniques": {"tfidf": {}}})
    runs: list[tuple[str, dict[str, Any]]] = [("ingest", {}), ("validate", {}), ("techniques", {})]
    runs += [(stage, {"name": "tfidf", "seed": seed}) for seed in (0, 1) for stage in ("resample", "train")]
    for stage, arguments in [*runs, ("evaluate", {"name": "tfidf"}), ("errors", {})]:
        done = project.stage_here(stage, **arguments)
        assert done.code == 0, (stage, done.stderr)
    ingested = pd.read_parquet(project.folder / PROJECT.messages)
    wrong = set(ingested.loc[ingested["text"].isin(before.loc[swapped, "text"]) & ingested["fold"].isin([0, 1]), "id"])
    listed = pd.read_csv(project.folder / PROJECT.relabel, dtype={"id": str})
    assert len(wrong & set(listed["id"])) >= 0.7 * len(wrong)
    corrected = listed[listed["id"].isin(wrong)].assign(label=listed["suggested"])
    project.write("edited.csv", corrected.to_csv(index=False).encode())
    assert project.stage_here("production.relabel", path=Path("edited.csv")).code == 0
    assert project.stage_here("ingest").code == 0
    after = pd.read_parquet(project.folder / PROJECT.messages).set_index("text")["label"]
    restored = before.set_index("text")["label"]
    texts = ingested.set_index("id").loc[corrected["id"], "text"]
    assert (after[texts] == restored[texts]).all()


def test_the_slice_of_all_agrees_with_the_evaluation(analysed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(analysed.folder)
    found, evaluation = read_json(PROJECT.errors), read_json(PROJECT.evaluations / "tfidf.json")
    confusion = np.sum([each["confusion"]["corrected"] for each in evaluation["seeds"].values()], axis=0)
    of_all = found["slices"]["techniques"]["tfidf"]["all"]["spam"]
    assert of_all["recall"]["value"] == pytest.approx(confusion[1, 1] / confusion[1].sum(), abs=1e-6)
    assert of_all["precision"]["value"] == pytest.approx(confusion[1, 1] / confusion[:, 1].sum(), abs=1e-6)
    assert "with a link" in found["slices"]["order"]
    assert found["slices"]["techniques"]["majority"]["all"]["spam"]["precision"] is None


def test_the_same_logits_give_the_same_bytes(analysed: Project) -> None:
    path = analysed.folder / PROJECT.errors
    before = path.read_bytes()
    assert analysed.stage_here("errors").code == 0
    assert path.read_bytes() == before


def test_techniques_that_only_answer_the_largest_class_leave_nothing_to_share(analysed: Project, tmp_path: Path) -> None:
    shutil.copytree(analysed.folder, tmp_path / "copy")
    alone = Project(tmp_path / "copy", ROOT)
    alone.edit({"techniques": {"majority": {}}})
    assert alone.stage_here("errors").code == 0
    found = read_json(alone.folder / PROJECT.errors)
    assert found["counted"] == [] and found["shared"]["shown"] == [] and found["suspects"]["shown"] == []
    assert "No technique has a higher macro F1" in section(found, {})
    (alone.folder / PROJECT.evaluations / "majority.json").unlink()
    assert "majority.json: no such file" in alone.stage_here("errors").error


def section(found: dict[str, Any], texts: dict[int, str]) -> str:
    """The section of the report as it is rendered."""
    names = list(found["mistakes"])
    params = {"train": {"seeds": [0, 1]}, "report": {"mistakes": 4}}
    return (
        environment(HERE)
        .get_template("errors.html")
        .render(
            errors=errors(found, texts, names, list(enumerate(found["labels"])), names[0]),
            answer={"technique": names[0]},
            params=params,
            names=names,
            roles=["selected"] + ["other"] * (len(names) - 1),
            first=1,
            confidence="95%",
        )
    )


def test_texts_are_escaped_cut_and_hidden_when_there_are_none(analysed: Project) -> None:
    found = read_json(analysed.folder / PROJECT.errors)
    rows = rows_of(found)
    html = section(found, dict.fromkeys(rows, HOSTILE))
    assert "<script>" not in html and "</style>" not in html and "&lt;script&gt;" in html and "{{ 7 * 7 }}" in html
    assert html.count("<table") == html.count("</table>")
    assert "x" * SHOWN_CHARACTERS not in html and "x…</bdi>" in html
    whole = section(found, dict.fromkeys(rows, "y" * NEIGHBOUR_CHARACTERS))
    assert "y" * NEIGHBOUR_CHARACTERS + "</bdi>" in whole and "…</bdi>" not in whole
    hidden = section(found, {})
    assert f"<bdi>row {found['suspects']['shown'][0]['row']}</bdi>" in hidden


def test_the_section_says_who_was_counted_and_that_suspects_are_no_errors(analysed: Project) -> None:
    found = read_json(analysed.folder / PROJECT.errors)
    html = " ".join(section(found, {}).split())
    count = found["mistakes"]["majority"]["count"]
    assert f"majority: {count} of {found['messages']} messages wrong" in html
    assert "always predicting the largest class" in html and "majority" in html
    assert "Read them before you change a label" in html and "too few" in html
