"""DVC's run cache: earlier parameters come back without running a stage, in this checkout and in a second clone."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from stages.store.project import PROJECT
from tests.project import ROOT, Project, corpus, project_copy, ran

# One stage removes what params.yaml no longer names, the other writes files that git has: they run again, in seconds.
NOT_RESTORED = {"techniques", "compare"}
# As long as the longest name of an entry in params.yaml.
LONG_NAME = "class_weight_spam_10"
COLUMNS = 120
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")


def commit(project: Project) -> None:
    for command in (["add", "-A"], [*IDENTITY, "commit", "--quiet", "--no-verify", "-m", "A run"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)


def results(project: Project) -> dict[str, bytes]:
    """The bytes of every output that earlier parameters must bring back."""
    folders = (PROJECT.cards, PROJECT.samples, PROJECT.models, PROJECT.logits, PROJECT.evaluations, PROJECT.selected)
    files = [path for folder in folders for path in (project.folder / folder).rglob("*") if path.is_file()]
    single = (PROJECT.messages, PROJECT.ingest, PROJECT.leaderboard, PROJECT.claims, PROJECT.reports / "index.html")
    files += [project.folder / path for path in single]
    return {path.relative_to(project.folder).as_posix(): path.read_bytes() for path in files if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Project:
    """A project after its first run, committed."""
    project = project_copy(tmp_path_factory.mktemp("run_cache"), quick_python)
    project.write("messages.csv", corpus({"ham": 240, "spam": 80}))
    project.edit(
        {
            "ingest.source": "csv",
            "ingest.path": "messages.csv",
            "techniques": {"tfidf": {"C": 1.0}, LONG_NAME: {"technique": "majority"}},
            "evaluate.resamples": 100,
            "train.seeds": [0],
        }
    )
    project.repro()
    commit(project)
    return project


# The tests below use the same project one after the other.


def test_earlier_parameters_come_back_without_running_a_stage(built: Project) -> None:
    before, params = results(built), (built.folder / "params.yaml").read_bytes()
    changes: dict[str, object] = {"ingest.seed": 1, "techniques": {"tfidf": {"C": 2.0}}}
    built.edit(changes)
    changed = built.repro()
    assert {"ingest", "train@tfidf-0", "evaluate@tfidf", "compare", "select", "report"} <= changed
    after = results(built)
    assert not (built.folder / PROJECT.models / LONG_NAME).exists()
    built.write("params.yaml", params)
    assert built.repro() <= NOT_RESTORED
    assert results(built) == before
    # An entry that is removed once more leaves nothing, although the run cache restores everything else.
    built.edit(changes)
    assert built.repro() <= NOT_RESTORED
    assert results(built) == after
    built.write("params.yaml", params)
    assert built.repro() <= NOT_RESTORED


def test_a_second_clone_trains_nothing(built: Project, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(built.folder), str(clone)], check=True)
    second = Project(clone, clone, built.environment | {"DVC_SITE_CACHE_DIR": str(clone / ".dvc/tmp/site")})
    for project in (built, second):
        assert project.run("dvc", "remote", "add", "--local", "--default", "disk", str(remote)).code == 0
    params, changes = (built.folder / "params.yaml").read_bytes(), {"ingest.seed": 1, "techniques": {"tfidf": {"C": 2.0}}}
    # DVC sends the content of the current results only.
    for edit in (lambda: built.edit(changes), lambda: built.write("params.yaml", params)):
        edit()
        assert built.repro() <= NOT_RESTORED
        pushed = built.run("dvc", "push", "--run-cache", "dvc.yaml")
        assert pushed.code == 0, pushed.stderr
    pulled = second.run("dvc", "pull", "--run-cache", "dvc.yaml")
    assert pulled.code == 0, pulled.stderr
    assert second.repro() == set()
    # No commit has the results of these parameters.
    second.edit(changes)
    assert second.repro("--pull") <= NOT_RESTORED
    assert not (second.folder / PROJECT.models / LONG_NAME).exists()


def test_the_views_of_dvc_fit_a_terminal(built: Project) -> None:
    """`dvc metrics show` has a row per technique; of experiments, the documented command shows what differs."""

    def shown(*command: str) -> list[str]:
        done = built.run("dvc", *command, COLUMNS=str(COLUMNS))
        assert done.code == 0, done.stderr
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= COLUMNS, done.stdout
        return lines

    paths = [f"metrics/{LONG_NAME}.json", "metrics/tfidf.json", "reports/metrics.json"]
    metrics = shown("metrics", "show")
    assert [line.split()[0] for line in metrics] == ["Path", *paths]
    assert metrics[0].split()[1:] == ["f1", "log_loss", "macro_f1", "selected_f1", "technique", "test_f1"]
    params = (built.folder / "params.yaml").read_bytes()
    built.edit({"techniques.tfidf": {"C": 3.0}})
    assert "train@tfidf-0" in built.repro()
    rows = {tuple(line.split()[:2]) for line in shown("metrics", "diff") if "metrics/tfidf.json" in line}
    assert ("metrics/tfidf.json", "log_loss") in rows
    text = (ROOT / "docs/guides/comparing_runs.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^\$ (dvc exp show .*)$", text, flags=re.MULTILINE)
    experiments = shown(*shlex.split(command)[1:])
    assert any("workspace" in line for line in experiments) and "techniques.tfidf.C" in "".join(experiments)
    assert shown("plots", "show")[-1].endswith("dvc_plots/index.html")
    built.write("params.yaml", params)
    assert built.repro() <= NOT_RESTORED


@pytest.mark.slow
def test_experiments_with_two_settings_train_once_each(built: Project) -> None:
    stages = []
    for value in ("3.0", "4.0", "3.0"):
        done = built.run("dvc", "exp", "run", "-S", f"techniques.tfidf.C={value}")
        assert done.code == 0, done.stderr
        stages.append(ran(done.stdout))
    assert "train@tfidf-0" in stages[0] & stages[1]
    assert stages[2] <= NOT_RESTORED
    subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=built.folder, check=True)
    assert built.repro() <= NOT_RESTORED
