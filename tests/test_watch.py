"""The watch and its labels: what is written of a window, odd windows, what is refused, feedback, two at once, three classes."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import stages.production.watch  # noqa: F401
from ballast.io.digest import parse_json
from stages.production.deployed import read_version
from stages.production.reference import read_held_out, read_reference
from stages.store.checked import write_table
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.deployed import label, promote, score, selected_project, traffic, watch
from tests.project import Project, corpus

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

KEYS = {
    "window",
    "n",
    "model",
    "labels",
    "reference_prior",
    "estimated_prior",
    "low",
    "high",
    "assumption_holds",
    "decision",
    "reasons",
    "methods",
    "findings",
    "quarantined",
    "new_labels",
    "rates",
    "feedback",
    "confidence",
    "to_label",
    "page_sha256",
    "labelled_performance",
    "recall_fell",
    "estimated_performance",
    "shadow",
}
USUAL = {"ham": 300, "spam": 50}
FEEDBACK = PROJECT.production / "feedback.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project with a deployed model and a scored window of usual traffic."""
    project = selected_project(tmp_path_factory.mktemp("watch"), quick_python, {"ham": 900, "spam": 150})
    assert promote(project) == "0001"
    score(project, "w1", traffic(USUAL))
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    left_out = {".dvc", ".git", "models", "logits", "probes"}

    def ignored(inside: str, names: list[str]) -> set[str]:
        return left_out & set(names) if Path(inside) == built.folder else set()

    shutil.copytree(built.folder, folder, symlinks=True, ignore=ignored)
    return Project(folder, folder, built.environment)


def watch_page(project: Project, window: str = "index") -> str:
    return (project.folder / PROJECT.watch / f"{window}.html").read_text(encoding="utf-8")


def queue_file(project: Project, window: str = "w1") -> pd.DataFrame:
    """The file of messages to label, as a spreadsheet would show it."""
    return pd.read_csv(project.folder / PROJECT.to_label / f"{window}.csv", dtype=str, keep_default_na=False)


def refused(project: Project, window: str = "w1") -> str:
    """The error of a window that cannot be watched, which leaves no half of anything."""
    error = project.stage_here("watch", window=window).error
    assert list((project.folder / PROJECT.production).rglob("*.partial")) == []
    return error


def feedback(project: Project) -> pd.DataFrame:
    """The feedback by id, after taking in the labels."""
    done = project.stage_here("feedback")
    assert done.code == 0, done.stderr
    return pd.read_parquet(project.folder / FEEDBACK).set_index("id")


def splits(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project.folder / PROJECT.messages)


# What is written


def test_a_usual_window_is_steady_and_all_is_written(project: Project) -> None:
    found = watch(project, "w1")
    assert set(found) == KEYS
    assert (found["window"], found["n"], found["model"], found["decision"]) == ("w1", 350, "0001", "steady")
    assert found["labels"] == ["ham", "spam"] and found["assumption_holds"] and found["quarantined"] == 0
    for key in ("estimated_prior", "low", "high", "reference_prior"):
        assert list(found[key]) == ["ham", "spam"]
    assert found["low"]["spam"] < 50 / 350 < found["high"]["spam"]
    assert set(found["methods"]) == {"classify_and_count", "decided_and_counted", "emq", "pacc"}
    for shares in (*found["methods"].values(), *found["rates"].values(), found["estimated_prior"]):
        assert sum(shares.values()) == pytest.approx(1)
    assert {each["name"] for each in found["findings"]} > {"scores", "length", "unseen_words"}
    assert set(found["findings"][0]) == {"name", "p", "effect", "rejects"}
    assert (found["feedback"], found["new_labels"]) == (None, {"ham": 0, "spam": 0})
    assert len(found["to_label"]) == 50 and {each["stratum"] for each in found["to_label"]} >= {
        "common-1",
        "rare-1",
        "neighbour",
    }
    assert "Evidently" in watch_page(project, "w1") and "w1: steady" in watch_page(project)


def test_a_window_is_compared_with_what_the_deployed_training_has_not_seen(project: Project) -> None:
    with contextlib.chdir(project.folder):
        version = read_version("0001")
        reference, held_out = read_reference(version), read_held_out(version)
    messages = splits(project)
    seen = messages[(messages["split"] == "train") & (messages["fold"] != 0)]
    own = messages[(messages["fold"] == 0) | (messages["split"] == "test")]
    assert sorted(reference.messages.groups) == sorted(own["group"])
    assert set(held_out["group"]) & set(seen["group"]) and not set(reference.messages.groups) & set(seen["group"])
    # Messages of the folds of other trainings hold no word that is new to the deployed one, as no message of traffic would.
    assert held_out[held_out["training"] == 1].query("split == 'validation'")["unseen_words"].sum() == 0
    shares = messages[messages["fold"].isin([0, 1])]["label"].value_counts(normalize=True)
    assert reference.validation_shares == pytest.approx(shares[["ham", "spam"]].to_numpy())


def test_watched_twice_the_bytes_are_the_same(project: Project) -> None:
    watch(project, "w1")
    paths = [project.folder / PROJECT.watch / name for name in ("w1.json", "w1.html", "index.html")]
    before = [path.read_bytes() for path in paths]
    watch(project, "w1")
    assert [path.read_bytes() for path in paths] == before


def test_two_at_once_agree(project: Project) -> None:
    command = ["python", "-m", "stages.production.watch", "--window", "w1"]
    both = [
        subprocess.Popen(command, cwd=project.folder, env=project.environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    together = (project.folder / PROJECT.watch / "w1.json").read_bytes()
    assert watch(project, "w1") == parse_json(together)
    assert (project.folder / PROJECT.watch / "w1.json").read_bytes() == together
    assert list((project.folder / PROJECT.watch).glob(".*.partial")) == []


def test_quality_is_estimated_without_labels_and_agrees_with_them(project: Project) -> None:
    """Also after the prior moved, and beside what the labels of the window show."""
    project.edit({"operating_point.costs": {"ham": {"spam": 10}, "spam": {"ham": 1}}})
    precision = []
    for seed, (window, counts) in enumerate({"w1": USUAL, "w2": {"ham": 250, "spam": 250}}.items(), start=3):
        messages = traffic(counts, seed=seed)
        score(project, window, messages)
        without = watch(project, window)
        assert without["estimated_performance"]["withheld"] is None and without["feedback"] is None
        label(project, window, messages)
        found = watch(project, window)
        metrics, shown = found["estimated_performance"]["metrics"], found["feedback"]["classes"]
        assert metrics == without["estimated_performance"]["metrics"], "labels do not change it"
        assert set(metrics) == {
            "cost",
            *(
                f"{name}.{metric}"
                for name in ("ham", "spam")
                for metric in ("precision", "recall", "f1", "share", "wrongly_assigned_per_10000")
            ),
        }
        for metric in metrics.values():
            assert 0 <= metric["low"] <= metric["value"] <= metric["high"]
        for name in ("ham", "spam"):
            for metric in ("precision", "recall", "f1"):
                # The interval is that of the traffic, and the window is a sample of it.
                estimate, chance = metrics[f"{name}.{metric}"], 3 * np.sqrt(0.1 * 0.9 / counts["spam"])
                assert estimate["low"] - chance <= shown[name][metric] <= estimate["high"] + chance, (window, name, metric)
        precision.append(metrics["spam.precision"])
    assert precision[0]["high"] < precision[1]["low"], "more spam, fewer false alarms among the messages called spam"


def test_a_floor_that_is_crossed_is_a_decision(project: Project) -> None:
    estimate = watch(project, "w1")["estimated_performance"]["metrics"]["spam.precision"]
    project.edit({"production.watch.floor": {"spam.precision": estimate["high"] - 0.001}})
    reached = watch(project, "w1")
    assert (reached["decision"], reached["estimated_performance"]["below_floor"]) == ("steady", {})
    floor = {"spam.precision": estimate["high"] + 0.001, "ham.recall": 0.1}
    project.edit({"production.watch.floor": floor})
    crossed = watch(project, "w1")
    assert crossed["decision"] == "below_floor" and "the estimated spam.precision is " in crossed["reasons"][0]
    assert crossed["estimated_performance"]["below_floor"] == {"spam.precision": floor["spam.precision"]}
    assert "w1: below_floor" in watch_page(project)
    messages = traffic(USUAL, seed=5)
    score(project, "w0", messages)
    label(project, "w0", messages)
    assert watch(project, "w1")["decision"] == "retrain"


def test_costs_of_other_labels_are_refused(project: Project) -> None:
    project.edit({"operating_point.costs": {"ham": {"spa": 10}, "spam": {"ham": 1}}})
    assert "params.yaml: operating_point.costs: names the label 'spa': did you mean 'spam'?" in refused(project)


# Odd windows


def withheld(found: dict[str, Any]) -> str:
    assert found["estimated_performance"]["metrics"] is None
    return str(found["estimated_performance"]["withheld"])


def test_a_window_without_a_message_is_looked_into(project: Project) -> None:
    score(project, "w2", traffic(USUAL)[:0])
    found = watch(project, "w2")
    assert withheld(found) == "the window has no messages"
    assert (found["n"], found["decision"], found["reasons"]) == (0, "investigate", ["the window has no messages"])
    assert found["estimated_prior"] is found["low"] is found["methods"] is None and found["to_label"] == []
    assert "no messages" in watch_page(project, "w2") and "no messages" in watch_page(project)


@pytest.mark.parametrize(
    ("counts", "decisions"),
    [
        ({"ham": 1, "spam": 0}, {"steady"}),
        ({"ham": 0, "spam": 1}, {"steady"}),
        ({"ham": 300, "spam": 0}, {"reprior"}),
        ({"ham": 0, "spam": 300}, {"reprior"}),
    ],
)
def test_a_window_of_one_class_or_one_message(project: Project, counts: dict[str, int], decisions: set[str]) -> None:
    score(project, "w2", traffic(counts))
    found = watch(project, "w2")
    assert set(found) == KEYS and found["decision"] in decisions, found["reasons"]
    if sum(counts.values()) == 1:
        assert withheld(found).startswith("1 messages are too few")
    share = counts["spam"] / sum(counts.values())
    # The reference has 45 spam messages only, so the noise among them moves the estimates of all windows.
    assert found["low"]["spam"] <= max(share, 0.01) and found["high"]["spam"] >= min(share, 0.9)
    assert all(0 < each < 1 for each in found["estimated_prior"].values())
    assert "w2" in watch_page(project)


POISON = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    '=HYPERLINK("http://example.com";"x")',
    "</script></textarea>{{ 7 * 7 }}{% raw %}",
    "x" * 90_000,
    "\u202e\ufeff\U0001f600" * 50,
    "12345",
]


def test_texts_of_another_kind_are_escaped_and_listed_to_be_labelled(project: Project) -> None:
    odd = [*POISON, *(f"WIN {at} NOW!!! ЦЕНА {at * 37} $$$ " * (3 + at % 5) for at in range(120))]
    score(project, "w2", pd.DataFrame({"id": [f"<i>{at}" for at in range(len(odd))], "text": odd}))
    found = watch(project, "w2")
    assert found["decision"] == "investigate" and not found["assumption_holds"]
    assert withheld(found) == "; ".join(found["reasons"])
    assert any(each["rejects"] for each in found["findings"])
    listed = [each["id"] for each in found["to_label"]]
    unusual = [each for each in found["to_label"] if each["stratum"] == "unusual"]
    assert 0 < len(unusual) <= 20 and len(set(listed)) == len(listed) <= 50
    assert len({each["group"] for each in found["to_label"]}) == len(listed)
    sheet = queue_file(project, "w2")
    assert sheet["id"].tolist() == listed
    assert not sheet["text"].str.startswith(("=", "+", "-", "@", "\t", "\r")).any()
    for page in (watch_page(project), watch_page(project, "w2")):
        for raw in ("<script>alert", "<img src=x", "<i>"):
            assert raw not in page, page[page.index(raw) - 300 :][:600]
    assert len(watch_page(project)) < 1_000_000
    assert "&lt;i&gt;" in watch_page(project)


def test_another_windows_broken_file_costs_no_page(project: Project) -> None:
    score(project, "w0", pd.DataFrame({"id": map(str, range(99)), "text": [f"NEW {'Ц' * (at % 9)} 7" * 9 for at in range(99)]}))
    assert watch(project, "w0")["decision"] == "investigate"
    (project.folder / PROJECT.scored / "w0.parquet").write_bytes(b"broken")
    done = project.stage_here("watch", window="w1")
    assert done.code == 0, done.stderr
    assert "w0: investigate" in watch_page(project)


def test_of_old_windows_the_one_just_watched_stays(project: Project) -> None:
    project.edit({"production.keep": {"versions": 2, "windows": 2}})
    for window in ("w0", "w2", "w3"):
        shutil.copy(project.folder / PROJECT.scored / "w1.parquet", project.folder / PROJECT.scored / f"{window}.parquet")
    assert watch(project, "w0")["decision"] == "steady"
    assert sorted(path.stem for path in (project.folder / PROJECT.scored).glob("*.parquet")) == ["w0", "w2", "w3"]
    assert watch(project, "w3")["decision"] == "steady"
    assert sorted(path.stem for path in (project.folder / PROJECT.watch).glob("*.json")) == ["w3"]


# The messages to label


def test_the_queue_of_a_window_is_a_sample_that_stays(project: Project) -> None:
    score(project, "w2", traffic({"ham": 400, "spam": 60}, seed=2))
    found = watch(project, "w2")["to_label"]
    sheet = queue_file(project, "w2")
    assert list(sheet) == ["id", "text", "predicted", "probability", "why", "stratum", "inclusion_probability", "label"]
    assert len(sheet) == len(found) == 50 and sheet["id"].tolist() == [row["id"] for row in found]
    assert sum(1 / row["inclusion_probability"] for row in found) == pytest.approx(460)
    assert all(0 < row["inclusion_probability"] <= 1 and sum(row["posteriors"].values()) == pytest.approx(1) for row in found)
    # Labels, and a file that people have begun to fill in, change nothing.
    path = project.folder / PROJECT.to_label / "w2.csv"
    path.write_text(path.read_text() + "\n")
    before = path.read_bytes()
    label(project, "w2", traffic({"ham": 400, "spam": 60}, seed=2)[:300])
    assert watch(project, "w2")["to_label"] == found and path.read_bytes() == before
    # Another window has other messages at the same places, and other scores of the same window another queue.
    score(project, "w2", traffic({"ham": 400, "spam": 60}, seed=3))
    assert watch(project, "w2")["to_label"] != found and path.read_bytes() != before


def test_labels_of_the_queue_show_precision_and_recall_over_windows(project: Project) -> None:
    project.edit({"production.labelling.budget": 120})
    hits, of_class, decided = 0, 0, 0
    for window, seed in (("w2", 2), ("w3", 3)):
        messages = traffic({"ham": 500, "spam": 120}, seed=seed)
        # A kind of spam that the model takes for ham.
        hidden = messages.index[messages["label"] == "ham"][:150]
        messages.loc[hidden, "label"] = "spam"
        score(project, window, messages)
        queue = watch(project, window)["to_label"]
        assert len(queue) == 120
        label(project, window, messages[messages["id"].isin([row["id"] for row in queue])])
        called = pd.read_parquet(project.folder / PROJECT.scored / f"{window}.parquet")["label"].to_numpy() == "spam"
        true = (messages["label"] == "spam").to_numpy()
        hits, of_class, decided = hits + int((true & called).sum()), of_class + int(true.sum()), decided + int(called.sum())
    found = watch(project, "w3")["labelled_performance"]
    assert (found["n"], found["windows"]) == (240, ["w2", "w3"]) and sum(found["labelled"].values()) == 240
    for name, truth in (("spam.recall", hits / of_class), ("spam.precision", hits / decided)):
        assert found["metrics"][name]["low"] <= truth <= found["metrics"][name]["high"], name
    assert found["metrics"]["spam.recall"]["high"] < 0.98
    page = watch_page(project)
    assert "Quality in production" in page and "240 labels" in page
    # They do not make the test split harder.
    fed = feedback(project)
    assert fed["new"].any() and not fed.loc[fed["split"] == "test", "new"].any()
    # The labels decide, because they are more than chance away from the held-out recall.
    fallen = watch(project, "w3")
    assert fallen["decision"] in ("retrain", "investigate") and fallen["recall_fell"] == ["spam"]
    assert "of the queue, weighted, is " in fallen["estimated_performance"]["withheld"]
    # Another version decides differently.
    score(project, "w4", traffic(USUAL, seed=4))
    assert watch(project, "w4")["labelled_performance"]["n"] == 240
    assert promote(project, reprior="w4") == "0002"
    score(project, "w5", traffic(USUAL, seed=5))
    assert watch(project, "w5")["labelled_performance"] is None


def test_without_a_budget_there_is_no_queue(project: Project) -> None:
    project.edit({"production.labelling.budget": 0})
    assert watch(project, "w1")["to_label"] == []
    assert not (project.folder / PROJECT.to_label / "w1.csv").exists()


def test_the_file_to_label_comes_back_with_its_ids_as_they_are(project: Project) -> None:
    ids = ["=1+1", "-7", "'q", "plain", "\u202eabc", "0012", "1e5"]
    texts = ['=HYPERLINK("http://example.com";"x")', "+call me", "a\nb, c", 'say "no"', "x\u202ey", "@now", "dabe mo kato"]
    score(project, "w2", pd.DataFrame({"id": ids, "text": texts}))
    watch(project, "w2")
    sheet = queue_file(project, "w2")
    assert len(sheet) == 7 and "'=1+1" in sheet["id"].tolist() and sheet["text"].str.contains("u202e").any()
    sheet["label"] = "spam"
    sheet.loc[sheet["id"] == "plain", "label"] = ""
    project.write(f"{PROJECT.labels}/w2.csv", sheet)
    found = feedback(project)
    assert set(found.index) == set(ids) - {"plain"} and (found["label"] == "spam").all()
    assert found.loc["=1+1", "text"] == texts[0] and found.loc["'q", "text"] == texts[2]


# What is refused


def rewritten(project: Project, change: Callable[[Any], Any]) -> None:
    """Change the table of the window, with its metadata."""
    path = project.folder / PROJECT.scored / "w1.parquet"
    write_table(path, change(parquet.read_table(path)))


def noted(project: Project, **changes: Any) -> None:
    """Change what the scoring noted."""
    path = project.folder / PROJECT.scored / "w1.parquet"
    about = json.loads(parquet.read_schema(path).metadata[b"ballast"]) | changes
    kept = {key: value for key, value in about.items() if value is not None}
    rewritten(project, lambda table: table.replace_schema_metadata({"ballast": json.dumps(kept)}))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


REFUSED: dict[str, tuple[Callable[[Project], Any], str]] = {
    "missing": (
        lambda project: (project.folder / PROJECT.scored / "w1.parquet").unlink(),
        "production/scored/w1.parquet: no such window; `python -m flows.score SOURCE --window w1` scores it",
    ),
    "no parquet": (
        lambda project: (project.folder / PROJECT.scored / "w1.parquet").write_bytes(b"PAR1 and more"),
        "production/scored/w1.parquet: it has no sha256",
    ),
    "cut off": (
        lambda project: (project.folder / PROJECT.scored / "w1.parquet").write_bytes(
            (project.folder / PROJECT.scored / "w1.parquet").read_bytes()[:-100]
        ),
        "production/scored/w1.parquet: it has no sha256",
    ),
    "empty": (
        lambda project: (project.folder / PROJECT.scored / "w1.parquet").write_bytes(b""),
        "w1.parquet: it has no sha256",
    ),
    "no metadata": (
        lambda project: rewritten(project, lambda table: table.replace_schema_metadata(None)),
        "w1.parquet: not a scored window",
    ),
    "no model": (lambda project: noted(project, model=None), "w1.parquet: not a scored window ('model missing')"),
    "no texts": (
        lambda project: rewritten(project, lambda table: table.drop_columns(["text"])),
        "w1.parquet: not a scored window ('text missing')",
    ),
    "a spoilt weight": (
        lambda project: spoil(project.folder / PROJECT.deployed / "0001/model/model.safetensors"),
        "0001/model/model.safetensors: sha256 is",
    ),
    "a spoilt reference": (
        lambda project: spoil(project.folder / PROJECT.deployed / "0001/reference.parquet"),
        "0001/reference.parquet: sha256 is",
    ),
    "a deleted version": (
        lambda project: noted(project, model="0000"),
        "w1: was scored by version 0000, which no longer exists: older versions are deleted (production.keep.versions); score",
    ),
    "another version of the name": (
        lambda project: noted(project, sha256="0" * 64),
        "w1: was scored by a version 0001 that differs from that of production/deployed; score it again",
    ),
    "a floor of no metric": (
        lambda project: project.edit({"production.watch.floor": {"spam.precison": 0.9}}),
        "params.yaml: production.watch.floor: no metric 'spam.precison' can have a floor: did you mean 'spam.precision'?",
    ),
    "a floor above 1": (
        lambda project: project.edit({"production.watch.floor": {"spam.precision": 95}}),
        "params.yaml: production.watch.floor.spam.precision: ",
    ),
    "a wrong setting": (
        lambda project: project.edit({"production.watch.tolerance": 2}),
        "params.yaml: production.watch.tolerance: ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_broken_is_refused_and_the_older_result_stays(project: Project, case: str) -> None:
    older = project.write(f"{PROJECT.watch}/w1.json", b"an older result")
    change, words = REFUSED[case]
    change(project)
    assert words in refused(project)
    assert older.read_bytes() == b"an older result"
    assert not (project.folder / PROJECT.watch / "w1.html").exists()


@pytest.mark.parametrize("window", ["", "../w1", "a/b", ".w1", "index"])
def test_a_window_needs_a_name(project: Project, window: str) -> None:
    assert f"--window is {window!r}; expected the name of a window" in refused(project, window)


# Labels


def test_late_labels_show_in_the_time_line_of_their_window(project: Project) -> None:
    messages = traffic(USUAL)
    watch(project, "w1")
    assert "w1: spam," not in watch_page(project)
    score(project, "w2", traffic(USUAL, seed=2))
    label(project, "w1", messages[:200])
    found = watch(project, "w2")
    assert found["feedback"] is None and sum(found["new_labels"].values()) > 150
    scored = pd.read_parquet(project.folder / PROJECT.scored / "w1.parquet")[:200]
    assert f"w1: spam, {(messages['label'][:200] == 'spam').sum()} of 200 labelled" in watch_page(project)
    assert read_json(project.folder / PROJECT.watch / "w1.json")["feedback"] is None
    of_window = watch(project, "w1")["feedback"]
    assert of_window["n"] == 200
    true, called = (values[:200].to_numpy() == "spam" for values in (messages["label"], scored["label"]))
    spam = of_window["classes"]["spam"]
    assert spam["support"] == true.sum() and of_window["share"]["spam"] == pytest.approx(true.mean())
    assert spam["precision"] == pytest.approx(true[called].mean()) and spam["recall"] == pytest.approx(called[true].mean())
    assert spam["f1"] == pytest.approx(2 * (true & called).sum() / (true.sum() + called.sum()))


def test_the_last_label_of_a_message_counts(project: Project) -> None:
    messages = traffic(USUAL)[:3].assign(label="ham")
    label(project, "1", messages)
    before = feedback(project)
    assert set(before["label"]) == {"ham"}
    label(project, "2", messages[:1].assign(label="spam"))
    after = feedback(project)
    assert after["label"].tolist() == ["spam", "ham", "ham"]
    assert after.drop(columns="label").equals(before.drop(columns="label"))
    # Without its file a label stays.
    (project.folder / PROJECT.labels / "2.csv").unlink()
    (project.folder / PROJECT.labels / "1.csv").unlink()
    assert feedback(project).equals(after)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", b"id,label\n1,spam\n2,spma\n", "a.csv: row 2 (line 3) has the label 'spma': did you mean 'spam'?"),
        ("a.csv", b"id,lable\n1-1,spam\n", "a.csv: no column 'label' (expected id and label): did you mean 'lable'?"),
        ("a.csv", b"label\nspam\n", "a.csv: no column 'id' (expected id and label): known: label"),
        ("a.csv", b"", "a.csv: empty file"),
        ("a.jsonl", b"", "a.jsonl: empty file"),
        ("a.jsonl", b"{", "a.jsonl: row 1 (line 1): invalid JSON: "),
        ("a.parquet", b"", "a.parquet: empty file"),
        ("a.csv", b"id,label\n1-1,spam\n1-2\n", "a.csv: row 2 (line 3): malformed csv: 1 field, expected 2"),
        ("a.csv", b"id,label\n1-1,\xff\n", "a.csv: "),
        ("a.xlsx", b"x", "a.xlsx: cannot be read as xlsx: "),
        ("a.csv", b"id,label\n1-1,spam\n ,ham\n", "a.csv: row 2 (line 3) has no id; expected the id of a scored message"),
        ("a.csv", b"id,label\n,ham\n", "a.csv: row 1 (line 2) has no id"),
        ("a.jsonl", b'{"id": null, "label": "ham"}\n{"id": "1", "label": "ham"}\n', "a.jsonl: row 1 (line 1) has no id"),
        ("a.jsonl", b'{"id": "1", "label": 1}\n', "a.jsonl: row 1 (line 1) has the label '1': known: ham, spam"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_read_are_one_readable_line(project: Project, name: str, content: bytes, error: str) -> None:
    before = project.write(f"{PROJECT.labels}/good.csv", b"id,label\n1-9,ham\n") and feedback(project)
    project.write(f"{PROJECT.labels}/{name}", content)
    assert f"error: production/labels/{error}" in project.stage_here("feedback").error
    assert pd.read_parquet(project.folder / FEEDBACK).set_index("id").equals(before)


def test_a_sheet_may_be_filled_in_bit_by_bit(project: Project) -> None:
    project.write(f"{PROJECT.labels}/a.csv", b"id,label\n1-1,\n1-2,ham\n1-3, \n")
    project.write(f"{PROJECT.labels}/b.jsonl", b'{"id": "1-4", "label": null}\n{"id": "1-5", "label": "spam"}\n')
    project.write(f"{PROJECT.labels}/.hidden", b"")
    project.write(f"{PROJECT.labels}/c.csv", b"id,label\n")
    assert feedback(project)["label"].to_dict() == {"1-2": "ham", "1-5": "spam"}


def test_labels_wait_for_their_window(project: Project) -> None:
    later = traffic(USUAL, seed=2)[:3]
    label(project, "early", later)
    done = project.stage_here("feedback")
    assert "0 labelled messages (0 added now), 0 of them new to the data; 3 labels have no scored message yet" in done.stderr
    score(project, "w2", later)
    came = feedback(project)
    assert came["window"].tolist() == ["w2"] * 3 and came["model"].tolist() == ["0001"] * 3


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_ids_are_text(project: Project, name: str) -> None:
    texts = ["dabe mo kato", "dabe me kota", "beka mo tako"]
    score(project, "w2", pd.DataFrame({"id": ["001", "1", "1e3"], "text": texts}))
    project.write(f"{PROJECT.labels}/{name}", pd.DataFrame({"id": ["001", "1e3"], "label": ["spam", "ham"]}))
    assert feedback(project)["label"].to_dict() == {"001": "spam", "1e3": "ham"}


def test_an_id_is_of_one_message_for_ever(project: Project) -> None:
    score(project, "w2", pd.DataFrame({"id": ["1"], "text": ["dabe mo kato"]}))
    project.write(f"{PROJECT.labels}/a.csv", b"id,label\n1,ham\n")
    before = feedback(project)
    score(project, "w3", pd.DataFrame({"id": ["1"], "text": ["beka mo tako"]}))
    project.write(f"{PROJECT.labels}/b.csv", b"id,label\n1,spam\n")
    assert "the id '1' belongs to different messages in the windows w2 and w3" in project.stage_here("feedback").error
    pd.testing.assert_frame_equal(pd.read_parquet(project.folder / FEEDBACK).set_index("id"), before)


def test_a_time_is_an_id_as_it_is_spelled(project: Project) -> None:
    ids = ["2026-11-21T10:00:00", "2026-11-21"]
    score(project, "w2", pd.DataFrame({"id": ids, "text": ["dabe mo kato", "beka mo tako"]}))
    lines = [json.dumps({"id": each, "label": "spam", "at": "2026-11-22"}) for each in ids]
    project.write(f"{PROJECT.labels}/a.jsonl", "\n".join(lines).encode())
    assert feedback(project)["label"].to_dict() == dict.fromkeys(ids, "spam")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_numbers_are_ids_too(project: Project, ending: str) -> None:
    project.write("in.jsonl", b'{"id": 1, "text": "dabe mo kato"}\n{"id": 12345678901234567, "text": "beka mo tako"}\n')
    assert project.stage_here("score", source="in.jsonl", window="w2").code == 0
    project.write(f"{PROJECT.labels}/a.{ending}", pd.DataFrame({"id": [1, 12345678901234567], "label": ["spam", "ham"]}))
    assert feedback(project)["label"].to_dict() == {"1": "spam", "12345678901234567": "ham"}


def test_labels_of_people_may_be_those_of_the_file(project: Project) -> None:
    project.edit({"ingest.label_map": {0: "ham", 1: "spam", "spam": "ham"}})
    score(project, "w2", traffic({"ham": 4, "spam": 4}, seed=5))
    rows = b"5-1,0\n5-2,1\n5-3,1.0\n5-4,spam \n5-5,\xe2\x80\x8bham\n5-6,\n5-7,\xe2\x80\x8b\n"
    project.write(f"{PROJECT.labels}/a.csv", b"\xef\xbb\xbfid,label\n" + rows)
    done = project.stage_here("feedback")
    assert done.code == 0, done.stderr
    labels = pd.read_parquet(project.folder / FEEDBACK).set_index("id")["label"].to_dict()
    assert labels == {"5-1": "ham", "5-2": "spam", "5-3": "spam", "5-4": "spam", "5-5": "ham"}
    # The value spam of the file is the label ham, but people see the labels of the model.
    assert "'spam ' is read as the label 'spam', not as the value that ingest.label_map maps to 'ham'" in done.stderr
    project.write(f"{PROJECT.labels}/a.csv", b"id,label\n5-1,0\n5-2,2\n")
    assert "a.csv: row 2 (line 3) has the label '2': known: 0, 1, ham, spam" in project.stage_here("feedback").error


def test_feedback_has_the_split_of_its_near_duplicates_and_keeps_it(project: Project) -> None:
    data = splits(project)
    twins = data.groupby("split").head(40).reset_index(drop=True)
    # Near duplicates of the data: other digits.
    near = twins["text"].str.replace(r"\d+", lambda match: str(int(match[0]) + 50_000), regex=True)
    window = pd.concat([pd.DataFrame({"text": near, "label": twins["label"]}), corpus(USUAL, seed=3)], ignore_index=True)
    window = window.assign(id=[f"m{row}" for row in range(len(window))])
    score(project, "w2", window)
    label(project, "w2", window)
    found = feedback(project)
    assert found["split"][: len(twins)].tolist() == twins["split"].tolist()
    assert found["new"][: len(twins)].all()
    assert found.groupby("group")["split"].nunique().max() == 1
    shares = found["split"][len(twins) :].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.1) and shares["test"] == pytest.approx(0.2, abs=0.1)
    assert feedback(project).equals(found)
    # Anywhere else too: from nothing, with the rows in another order.
    (project.folder / FEEDBACK).unlink()
    label(project, "w2", window[::-1])
    assert feedback(project)["split"].to_dict() == found["split"].to_dict()
    # Data that are split anew do not move what is frozen.
    write_table(project.folder / PROJECT.messages, splits(project).assign(split="test"))
    assert feedback(project)["split"].to_dict() == found["split"].to_dict()


def test_what_training_has_is_not_new(project: Project) -> None:
    known = splits(project)["text"][:2].tolist()
    texts = [*known, "dabe mo kato", "dabe mo kato", "dabe mo kato 7"]
    window = pd.DataFrame({"id": list("abcde"), "text": texts, "label": "ham"})
    score(project, "w2", window)
    label(project, "w2", window)
    assert feedback(project)["new"].to_dict() == dict(zip("abcde", [False, False, True, False, True], strict=True))
    assert watch(project, "w2")["new_labels"] == {"ham": 2, "spam": 0}


def test_a_corrected_version_is_not_blamed_for_the_recall_of_the_one_before(project: Project) -> None:
    """Its operating point is another, and so its recall, although its weights are the same."""
    many = traffic({"ham": 300, "spam": 300}, seed=4)
    score(project, "w2", many)
    label(project, "w2", many)
    path = project.folder / FEEDBACK
    frozen = feedback(project)
    assert watch(project, "w2")["decision"] == "retrain"
    # As if the first version, at its own operating point, had found half of the spam only.
    missed = (frozen["label"] == "spam") & (np.arange(len(frozen)) % 2 == 0)
    write_table(path, frozen.assign(called=frozen["called"].mask(missed, "ham")).reset_index())
    assert any("recall of spam" in each for each in watch(project, "w2")["reasons"])
    assert promote(project, reprior="w2") == "0002"
    score(project, "w3", traffic({"ham": 300, "spam": 300}, seed=5))
    found = watch(project, "w3")
    assert (found["model"], found["decision"]) == ("0002", "steady"), found["reasons"]
    # And a version that is deleted is not missed.
    shutil.rmtree(project.folder / PROJECT.deployed / "0001")
    assert watch(project, "w3") == found


# Three classes


def test_three_classes_from_promotion_to_watch(tmp_path: Path, quick_python: Path) -> None:
    counts = {"ham": 500, "scam": 150, "spam": 150}
    project = selected_project(tmp_path, quick_python, counts)
    promote(project)
    score(project, "w1", traffic({"ham": 250, "scam": 75, "spam": 75}))
    found = watch(project, "w1")
    assert set(found) == KEYS and found["labels"] == list(counts)
    assert found["decision"] == "steady", found["reasons"]
    moved = traffic({"ham": 200, "scam": 150, "spam": 50}, seed=2)
    score(project, "w2", moved)
    found = watch(project, "w2")
    assert found["decision"] == "reprior", found["reasons"]
    for name, share in (("ham", 0.5), ("scam", 0.375), ("spam", 0.125)):
        assert found["low"][name] < share < found["high"][name]
    assert {true: set(of) for true, of in found["rates"].items()} == {name: set(counts) for name in counts}
    label(project, "w2", moved)
    assert promote(project, reprior="w2") == "0002"
    score(project, "w3", traffic({"ham": 200, "scam": 150, "spam": 50}, seed=3))
    found = watch(project, "w3")
    assert (found["model"], found["decision"]) == ("0002", "steady"), found["reasons"]
    assert found["new_labels"] == {"ham": 200, "scam": 150, "spam": 50}
    page = watch_page(project)
    assert all(f"{window}: " in page for window in ("w1", "w2", "w3")) and "scam" in watch_page(project, "w2")
