"""params.yaml edited in place for a retraining: what it says, and that all else stays as it was written."""

from __future__ import annotations

import difflib
import re
from typing import Any

import pytest

from stages.production.retrained_params import parsed, retrained
from stages.store.params import Params
from tests.project import ROOT

PRIOR = {"ham": 0.75, "spam": 0.25}
TEXT = (ROOT / "params.yaml").read_bytes().decode()
SMALL = """\
production: {prior: data, promote: 'auto'} # both
techniques:
    a: {}   # first

    # About b.
    b: {x: 1,
      y: "2"}
    c:
        z: |
            one
            # two
    # About d.
    d: {}

    # The end.
search: {trials: 30, spaces: {b: {x: {low: 1}}, c: {}}}
"""


def changes(before: str, after: str) -> list[str]:
    """The lines that differ."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def test_our_own_params_change_by_the_prior_and_by_comments_only() -> None:
    made = retrained(TEXT, PRIOR, {"tfidf", "baseline"}, "w1")
    assert not made.deleted and len(made.left_out) == 19 and "focal" in made.left_out
    found = parsed(made.text)
    Params.model_validate(found)
    assert (found["production"]["prior"], set(found["techniques"])) == (PRIOR, {"tfidf", "baseline"})
    assert (found["search"]["spaces"], found["search"]["trials"]) == ({}, 0)
    # Without the marks all is as it was, but for the prior and the braces of a mapping that is empty now.
    lines = [line for line in made.text.splitlines() if "Left out by the retraining w1" not in line]
    assert changes(TEXT, "\n".join(re.sub("^( +)# ", r"\1", line) for line in lines)) == [
        *changes(TEXT, TEXT.replace("prior: data                 #", "prior: {ham: 0.75, spam: 0.25} #")),
        *changes(TEXT, TEXT.replace("spaces:                     #", "spaces: {}                  #")),
    ]
    assert made.text.count("Left out by the retraining w1") == 3
    # Once more, nothing but the prior is left to change.
    again = retrained(made.text, {"ham": 0.5, "spam": 0.5}, {"tfidf", "baseline"}, "w2")
    assert again.left_out == [] and len(changes(made.text, again.text)) == 2


def test_all_entries_stay_where_params_say_so() -> None:
    made = retrained(TEXT, PRIOR, None, "w1")
    assert made.left_out == [] and len(changes(TEXT, made.text)) == 2


def test_entries_of_several_lines_become_comments_and_comments_stay() -> None:
    made = retrained(SMALL, PRIOR, {"a", "d"}, "k")
    note = '    # Left out by the retraining k; to restore an entry, remove its "# "'
    assert (made.left_out, made.deleted) == (["b", "c"], True), "search.spaces is on one line"
    assert made.text == SMALL.replace("prior: data", "prior: {ham: 0.75, spam: 0.25}").replace(
        '    b: {x: 1,\n      y: "2"}\n    c:\n        z: |\n            one\n            # two\n',
        f'{note}\n    # b: {{x: 1,\n    #   y: "2"}}\n    # c:\n    #     z: |\n    #         one\n            # two\n',
    ).replace("trials: 30, spaces: {b: {x: {low: 1}}, c: {}}", "trials: 0, spaces: {}")


PRIORS = {
    "a flow": ("prior: {ham: 0.9,  spam: 0.1} # ours", "prior: {ham: 0.75,  spam: 0.25} # ours"),
    "a block": (
        "prior:\n    spam: 0.1 # rare\n    ham: 0.9\n  # End.",
        "prior:\n    spam: 0.25 # rare\n    ham: 0.75\n  # End.",
    ),
    "quoted": ("prior: {'ham': 0.9, \"spam\": 0.1}", "prior: {'ham': 0.75, \"spam\": 0.25}"),
    "other labels": ("prior: {eggs: 1.0}", "prior: {ham: 0.75, spam: 0.25}"),
}


@pytest.mark.parametrize("case", PRIORS)
def test_a_prior_is_replaced_where_it_stands(case: str) -> None:
    before, after = PRIORS[case]
    rest = "\ntechniques: {a: {}}\nsearch: {trials: 0, spaces: {}}\n"
    assert retrained(f"production:\n  {before}{rest}", PRIOR, None, "k").text == f"production:\n  {after}{rest}"


UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "an anchor that is left out": ("\n  a: &a {x: 1}\n  b: *a\n", {"b": {"x": 1}}),
    "a merge": ("\n  a: &a {x: 1}\n  b: {<<: *a, y: 2}\n", {"b": {"x": 1, "y": 2}}),
    "on one line": (" {a: {}, b: {}}\n", {"b": {}}),
    "windows' lines": ("\r\n  a: {}\r\n  b: {}\r\n", {"b": {}}),
    "names in quotes": ("\n  'a': {}\n  \"b\": {}\n", {"b": {}}),
    "without parameters": ("\n  a:\n  b:\n", {"b": None}),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_whatever_the_form_the_content_is_right(case: str) -> None:
    techniques, expected = UNUSUAL[case]
    text = f"# Top\nproduction: {{prior: data}}\nsearch: {{trials: 0, spaces: {{}}}}\ntechniques:{techniques}"
    made = retrained(text, PRIOR, {"b"}, "k")
    assert parsed(made.text) == {
        "production": {"prior": PRIOR},
        "search": {"trials": 0, "spaces": {}},
        "techniques": expected,
    }
    assert made.text.startswith("# Top") and made.left_out == ["a"]
    assert made.deleted == (case in ("an anchor that is left out", "a merge", "on one line"))


def test_gpus_of_an_entry_that_is_left_out_are_left_out_too() -> None:
    text = TEXT.replace("gpus_of: {}", "gpus_of: {focal: 0, tfidf: 1}")
    made = retrained(text, PRIOR, {"tfidf"}, "w1")
    assert made.deleted and Params.model_validate(parsed(made.text)).nodes.gpus_of == {"tfidf": 1.0}
