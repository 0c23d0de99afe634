"""README.md, SECURITY.md and the manual agree with the measurements, the settings and the code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ballast
from docs.figures import FIGURES, FOLDER
from stages.pages.readme import MARKDOWN, PICTURES, README, filled, results_table, tables
from stages.store.files import read_json, write_json
from stages.store.leaderboard import PROTOCOL
from stages.store.params import Params, read_params
from stages.store.project import PROJECT

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / README).read_text(encoding="utf-8")
PAGES = {path: (ROOT / path).read_text(encoding="utf-8") for path in MARKDOWN}


committed_results = pytest.mark.skipif(
    read_json(ROOT / PROJECT.leaderboard).get("protocol", 1) != PROTOCOL,
    reason="the committed leaderboard follows a former protocol; `make repro` and `make readme` renew it",
)


def examples(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_the_readme_has_at_most_a_thousand_words() -> None:
    assert len([word for word in TEXT.split() if re.search(r"\w", word)]) <= 1000


@committed_results
@pytest.mark.parametrize("path", MARKDOWN, ids=str)
def test_the_marked_blocks_show_the_committed_results(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert filled(PAGES[path], tables()) == PAGES[path]


@committed_results
def test_every_block_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    begun = [name for text in PAGES.values() for name in re.findall(r"<!-- (\w+): made by `?make readme`? -->", text)]
    assert sorted(begun) == sorted(tables())


def test_the_committed_leaderboard_has_the_techniques_of_the_params() -> None:
    board = read_json(ROOT / PROJECT.leaderboard)
    assert set(board["techniques"]) == set(read_params(ROOT / "params.yaml").techniques)


def test_the_short_table_has_the_best_the_reference_and_the_smallest() -> None:
    def entry(f1: float, weights: int) -> dict:
        out_of_fold, test = (
            {"rare.f1": {"value": value, "low": value - 0.1, "high": value + 0.1}} for value in (f1, f1 - 0.05)
        )
        test |= {"rare.precision": {"value": 0.5}, "rare.recall": {"value": 0.25}}
        difference = {"rare.f1": {"verdict": "not shown", "difference": -0.0125}}
        return {
            "operating_point": test,
            "out_of_fold": out_of_fold,
            "raw": {"rare.support": {"value": 12}},
            "comparison": {"operating_point": {"metrics": difference}},
            "parameters": weights,
            "seeds": [0, 1],
        }

    techniques = {f"t{rank}": entry(0.9 - rank / 100, 1000) for rank in range(9)}
    techniques |= {"reference": entry(0.3, 1000) | {"comparison": None}, "linear": entry(0.2, 10), "constant": entry(0.0, 2)}
    board = {"production_prior": {"common": 0.9, "rare": 0.1}, "reference": "reference", "techniques": techniques}
    lines = results_table(board).splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:-2]]
    assert names == ["t0", "t1", "t2", "t3", "t4", "reference", "linear", "constant"]
    f1 = "0.900 [0.800,\N{NO-BREAK SPACE}1.000] | 0.850 [0.750,\N{NO-BREAK SPACE}0.950]"
    assert lines[2] == f"| t0 | {f1} | 0.500 | 0.250 | not shown (-0.013) | 1 k |"
    assert " | reference | 1 k |" in lines[7]
    assert "2 seeds, 12 rare messages in the test split" in lines[-1]


@committed_results
def test_the_blocks_of_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / PROJECT.leaderboard).parent.mkdir()
    (tmp_path / PROJECT.leaderboard).write_bytes((ROOT / PROJECT.leaderboard).read_bytes())
    where = {"device": "CPU", "date": "2026-01-02"}
    harm = {"lost": 0, "blocked": 0}
    commands = {"score": {"kills": 48, **harm}, "watch": {"kills": 2, **harm}}
    kills = {"counts": {"kills": 50, **harm}, "commands": commands, "command": "make test-kills", **where}
    kinds = {"names": {"tried": 1234, "wrong": 1}}
    inputs = {"counts": {"tried": 1234, "wrong": 1}, "kinds": kinds, "command": "make test-inputs", **where}
    for name, result in (("kills", kills), ("bad_inputs", inputs)):
        write_json(tmp_path / f"benchmarks/{name}.json", result)
    block = "<!-- {0}: made by {1}make readme{1} -->\n{2}\n<!-- end of {0} -->\nbetween\n"
    page = "".join(block.format(*parts, "old") for parts in (("kills", "`"), ("flips", "`"), ("inputs", "")))
    kills_table = (
        "| killed command | kills | blocked | lost |\n|---|---|---|---|\n"
        "| score | 48 | 0 | 0 |\n| watch | 2 | 0 | 0 |\n| all | 50 | 0 | 0 |\n\n"
        "`make test-kills` (CPU, 2026-01-02)"
    )
    inputs_table = (
        "| kind | tried | wrong |\n|---|---|---|\n| names | 1,234 | 1 |\n| all | 1,234 | 1 |\n\n"
        "`make test-inputs` (CPU, 2026-01-02)"
    )
    new = filled(page, tables())
    assert new == "".join(
        [
            block.format("kills", "`", kills_table),
            block.format("flips", "`", "old"),
            block.format("inputs", "", inputs_table),
        ]
    )
    assert filled(new, tables()) == new


def test_the_example_technique_builds() -> None:
    [source] = [example for example in examples(TEXT, "python") if "def build" in example]
    scope: dict = {}
    exec(compile(source, "README.md", "exec"), scope)
    technique = scope["build"](np.array([90, 10]), ["ham", "spam"], power=1.0)
    np.testing.assert_allclose(technique.class_weights, [100 / 180, 5.0])


def merged(settings: dict, changes: dict) -> dict:
    """Settings with changes, merged key by key at every depth."""
    return settings | {
        key: merged(settings[key], value) if isinstance(value, dict) and isinstance(settings.get(key), dict) else value
        for key, value in changes.items()
    }


@pytest.mark.parametrize("path", [README, *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md"))], ids=str)
def test_the_example_settings_are_accepted(path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for example in examples((ROOT / path).read_text(encoding="utf-8"), "yaml"):
        Params.model_validate(merged(shipped, yaml.safe_load(example)))


def test_the_technique_of_the_guide_is_its_equation() -> None:
    [source] = examples((ROOT / "docs/guides/adding_a_technique.md").read_text(encoding="utf-8"), "python")
    scope: dict = {}
    exec(compile(source, "adding_a_technique.md", "exec"), scope)
    technique = scope["build"](np.array([90, 10]), ["ham", "spam"], epsilon=2.0)
    logits, labels = torch.tensor([[0.0, 1.0], [3.0, -1.0]]), torch.tensor([0, 1])
    probability = logits.softmax(dim=1)[[0, 1], labels]
    loss = technique.loss(logits, labels, torch.tensor([1.0, 0.5]), 0.0)
    torch.testing.assert_close(loss, torch.tensor([1.0, 0.5]) * (2 * (1 - probability) - probability.log()))
    assert technique.declared_prior(np.array([0.9, 0.1])) is None


def test_every_figure_is_drawn_and_shown() -> None:
    text = PAGES[Path("docs/how_we_judge.md")]
    assert re.findall(r"_static/figures/(\w+)\.svg", text) == list(FIGURES)
    assert sorted(path.stem for path in FOLDER.glob("*.svg")) == sorted(FIGURES)


def test_a_figure_is_drawn() -> None:
    axes = FIGURES["claims"]().axes
    assert next(label.get_text() for label in axes[0].get_yticklabels()) == "higher: supported"


WRITTEN_BY_HAND = (*MARKDOWN, Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), *sorted(Path("docs/guides").glob("*.md")))


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=str)
def test_the_make_targets_and_files_named_exist(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert set(re.findall(r"[`$] ?make ([a-z-]+)", text)) <= targets
    code = r"`((?:ballast|stages|flows|infra|docs|tests|studies|benchmarks)/[\w/.-]+\.(?:py|md|yaml|json|conf|lock))`"
    written = {"studies/results/NAME.json", "studies/results/datasets.json", "studies/results/datasets/NAME.json"}
    # An example of a file that does not exist yet is shown in a code block only.
    assert [name for name in re.findall(code, text) if name not in written and not (ROOT / name).exists()] == []
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not ((ROOT / path).parent / link).exists()] == []


def test_the_pictures_exist() -> None:
    assert all((ROOT / picture).is_file() for picture in PICTURES.values())


def test_the_changelog_begins_with_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+) - \d{4}-\d\d-\d\d$", text, flags=re.M)[0] == ballast.__version__


def test_the_hooks_and_forms_are_what_their_readers_expect() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["entry"].split()[0] for hook in repository["hooks"]} == {".venv/bin/ruff", ".venv/bin/mypy"}
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.name != "config.yml":
            assert {"name", "description", "body"} <= set(content)
            assert all("id" in field or field["type"] == "markdown" for field in content["body"])
