"""Bad settings: every number of params.yaml out of its limits, YAML to choke on, names, labels, shares, arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bad_inputs import PARAMS, Case

HUGE = 10**40
# What is no number within limits, and how an error shows it.
NO_NUMBERS: dict[str, tuple[Any, str]] = {
    "huge": (HUGE, "found 1000000000"),
    "NaN": (float("nan"), "found nan"),
    "infinite": (float("inf"), "found inf"),
    "a truth value": (True, "found True"),
    "digits in quotes": ("3", "found '3'"),
}
# Numbers that the file leaves out.
LEFT_OUT = (
    "operating_point.precision",
    "operating_point.recall",
    "operating_point.budget",
    "operating_point.beta",
    "operating_point.guarantee",
    "select.constraints.accuracy",
    "nodes.gpus_of.baseline",
    "production.prior.ham",
    "validate.expected_prior.ham",
)


def numeric_keys(section: dict[str, Any], place: str = "") -> Iterator[str]:
    """The dotted keys of all numbers of params.yaml."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from numeric_keys(value, f"{place}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{place}{name}"


def numbers() -> Iterator[Case]:
    """Every number in its place by what is no such number."""
    for key in [*numeric_keys(PARAMS), *LEFT_OUT]:
        for name, (value, found) in NO_NUMBERS.items():
            parent, _, last = key.rpartition(".")
            inside = parent in ("production.prior", "validate.expected_prior")
            changes = {parent: {last: value, "spam": 0.5}} if inside else {key: value}
            # Whole numbers and words may stand for processes.
            said = (key,) if key == "train.processes" else (key, found)
            yield Case(kind="numbers", name=f"{key} {name}", stage="params", said=said, params=changes)
    for name, (value, found) in NO_NUMBERS.items():
        yield Case(
            kind="numbers",
            name=f"a seed {name}",
            stage="params",
            said=("train.seeds.0", found),
            params={"train.seeds": [value]},
        )
        yield Case(
            kind="numbers",
            name=f"a cost {name}",
            stage="params",
            said=("operating_point.costs.ham.spam", found),
            params={"operating_point.costs": {"ham": {"spam": value}, "spam": {"ham": 1}}},
        )
        yield Case(
            kind="numbers",
            name=f"a weight {name}",
            stage="techniques",
            said=("params.yaml: techniques.class_weight: class_weight.weights of ham must be a number above 0", "not "),
            params={"techniques": {"class_weight": {"weights": {"ham": value, "spam": 1}}}},
        )
    for technique, key in (
        ("focal", "gamma"),
        ("logit_adjust", "tau"),
        ("ldam", "margin"),
        ("tfidf", "C"),
        ("smote", "neighbours"),
        ("upsample", "ratio"),
    ):
        for name, value in (
            ("huge", HUGE),
            ("NaN", float("nan")),
            ("a truth value", True),
            ("digits in quotes", "3"),
            ("negative", -1),
        ):
            yield Case(
                kind="numbers",
                name=f"{technique}.{key} {name}",
                stage="techniques",
                said=(f"params.yaml: techniques.{technique}: ", "number"),
                params={"techniques": {technique: {key: value}}},
            )
    yield Case(
        kind="numbers",
        name="a sample of a billion times the data",
        stage="techniques",
        said=("techniques.upsample: ratio must be at least 0.01, got 1e-09",),
        params={"techniques": {"upsample": {"ratio": 1e-9}}},
    )


LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (at, at, b", ".join([b"*%c" % (at - 1)] * 9)) for at in range(98, 107)
)
YAMLS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "10,000 brackets": (b"a: " + b"[" * 10_000 + b"]" * 10_000, ("line 1: more than 30 nested levels",)),
    "10,000 braces": (b"{a: " * 10_000, ("more than 30 nested levels",)),
    "10,000 dashes": (b"- " * 10_000 + b"a", ("more than 30 nested levels",)),
    "1,000 indents": (b"".join(b" " * at + b"a:\n" for at in range(1000)), ("line 30: more than 30 nested levels",)),
    "a billion laughs": (LAUGHS, ("repeat more than 10,000 values",)),
    "a list of itself": (b"a: &a [*a]", ("*a is inside &a itself",)),
    "a mapping of itself": (b"a: &a {b: *a}", ("*a is inside &a itself",)),
    "an anchor twice": (b"a: &a 1\nb: &a 2", ("line 2: the anchor &a is defined twice",)),
    "an unknown alias": (b"a: *b", ("undefined alias", "line 1")),
    "a key twice": (b"train: 1\nother: 2\ntrain: 3", ("duplicate key", "line 3")),
    "a tab": (b"train:\n\tepochs: 1", ("line 2", "\\t")),
    "a list": (b"- train", ("expected keys with values, found ['train']",)),
    "a word": (b"train", ("expected keys with values, found 'train'",)),
    "nothing": (b"", ("expected keys with values, found None",)),
    "a comment": (b"# nothing", ("expected keys with values, found None",)),
    "bytes": (bytes(range(256)), ("not UTF-8 at line 2, byte 0x80",)),
    "UTF-16": ("train: 1".encode("utf-16"), ("not UTF-8 at line 1, byte 0xff",)),
    "a NUL": (b"train: \0", ("not valid YAML", "#x0000")),
    "an escape": (b"train: \x1b[31m", ("not valid YAML", "#x001b")),
    "two documents": (b"train: 1\n---\ntrain: 2", ("single document", "line 2")),
    "a program": (b"train: !!python/object/apply:os.system [ls]", ("not valid YAML", "python/object")),
    "an object": (b"train: !!python/object:os.PathLike {}", ("not valid YAML", "python/object")),
    "a tag": (b"train: !mine 1", ("not valid YAML", "!mine")),
    "a number of 5,000 digits": (b"train: " + b"9" * 5000, ("not valid YAML", "4300 digits")),
    "a number of 5,000 hex digits": (b"train: 0x" + b"f" * 5000, ("missing key 'ingest'",)),
    "the 13th month": (b"train: 2026-13-01", ("not valid YAML", "month")),
    "a list as a key": (b"? [a]\n: 1", ("missing key",)),
    "a mapping as a key": (b"? {a: 1}\n: 1", ("not valid YAML", "unhashable")),
    "an open bracket": (b"train: [1", ("not valid YAML", "line 1")),
    "an open quote": (b'train: "1', ("not valid YAML", "quoted scalar")),
    "no base64": (b"train: !!binary x", ("not valid YAML", "base64")),
    "no merge": (b"<<: 5", ("not valid YAML", "merging")),
    "another version": (b"%YAML 9.9\n---\ntrain: 1", ("not valid YAML", "version")),
    "more than a megabyte": (b"# " + b"x" * (1 << 20), ("larger than 1,048,576 bytes",)),
    "a mark and nothing": (b"\xef\xbb\xbf", ("found None",)),
    "a date for a section": (b"train: 2026-01-31", ("missing key",)),
}


def yaml_files() -> Iterator[Case]:
    """Files that are no settings, for params.yaml, a study's params.yaml and DVC's lock."""
    for name, (content, said) in YAMLS.items():
        yield Case(kind="YAML", name=name, stage="params", said=("params.yaml: ", *said), params=content)
    study = "studies/ratio/params.yaml"
    for name in (
        "10,000 brackets",
        "a billion laughs",
        "a key twice",
        "a list",
        "nothing",
        "UTF-16",
        "a program",
        "two documents",
    ):
        content, said = YAMLS[name]
        yield Case(
            kind="YAML of a study",
            name=name,
            stage="variant",
            arguments={"study": "ratio", "variant": "v"},
            files={study: content, "studies/ratio/dvc.yaml": b"stages: {}"},
            said=(f"{study}: ", *said),
        )


TEXTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one column for text and label": (
        {"ingest.label_column": "text"},
        ("ingest: label_column and text_column are both 'text'", "two columns"),
    ),
    "one column for text and id": ({"ingest.id_column": "text"}, ("ingest: text_column and id_column are both 'text'",)),
    "one column for label and id": ({"ingest.id_column": "label"}, ("ingest: label_column and id_column are both 'label'",)),
    "one column in production": (
        {"production.score.id_column": "body", "production.score.text_column": "body"},
        ("production.score: text_column and id_column are both 'body'",),
    ),
    "a blank column": ({"ingest.text_column": " "}, ("ingest.text_column", "found ' '")),
    "an empty column": ({"ingest.text_column": ""}, ("ingest.text_column", "found ''")),
    "a column of 20,000 letters": ({"ingest.text_column": "x" * 20_000}, ("ingest.text_column", "at most 1000")),
    "a surrogate as a column": ({"ingest.text_column": "\ud800"}, ("ingest.text_column", "found '\\ud800'")),
    "an escape as a column": ({"ingest.text_column": "\x1b[31mred\x07"}, ("no column '\\x1b[31mred\\x07'",)),
    "a column from right to left": ({"ingest.text_column": "\u202etxet"}, ("no column '\\u202etxet'", "did you mean 'text'")),
    "a column with a line end": ({"ingest.text_column": "te\nxt"}, ("no column 'te\\nxt'",)),
    "no target of the map": ({"ingest.label_map": {"ham": None, "spam": "spam"}}, ("ingest.label_map.ham", "found None")),
    "a blank target of the map": ({"ingest.label_map": {"ham": " ", "spam": "spam"}}, ("ingest.label_map.ham", "found ' '")),
    "a list as a target": ({"ingest.label_map": {"ham": ["a"], "spam": "spam"}}, ("ingest.label_map.ham", "found ['a']")),
    "one target for all": ({"ingest.label_map": {"ham": "x", "spam": "x"}}, ("a single class (x)", "at least two")),
    "an empty map": ({"ingest.label_map": {}}, ("ingest.label_map lacks", "known: none")),
    "an invisible target": ({"ingest.label_map": {"ham": "h\u200bam", "spam": "spam"}}, ("invisible", "'h\\u200bam'")),
    "a target that rings": ({"ingest.label_map": {"ham": "h\x07am", "spam": "spam"}}, ("control", "'h\\x07am'")),
    "a target of 1,000 letters": (
        {"ingest.label_map": {"ham": "h" * 1000, "spam": "s"}},
        ("ingest.label_map.ham", "at most 200"),
    ),
    "a path of blanks": ({"ingest.path": "  "}, ("ingest.path",)),
    "a path with a NUL": ({"ingest.path": "a\0b.csv"}, ("a\\x00b.csv",)),
    "a path with an escape": ({"ingest.path": "\x1b]0;title\x07.csv"}, ("\\x1b]0;title\\x07.csv: no such file",)),
    "a path of 5,000 letters": ({"ingest.path": "x" * 5000 + ".csv"}, ("error: xxx", "name too long")),
    "a protocol nobody knows": ({"ingest.path": "nope://host/a.csv"}, ("nope://host/a.csv: cannot be read", "nope")),
    "a sha256 of words": ({"ingest.sha256": "abc"}, ("ingest.sha256", "found 'abc'")),
    "priors below 0": ({"production.prior": {"ham": -1.0, "spam": 2.0}}, ("production.prior.ham", "greater than 0")),
    "priors that sum to 2": ({"production.prior": {"ham": 0.9, "spam": 0.9}}, ("must sum to 1, not 1.8",)),
    "priors of nothing": ({"production.prior": {}}, ("must sum to 1, not 0",)),
    "a list of priors": ({"production.prior": [0.5, 0.5]}, ("production.prior", "[0.5, 0.5]")),
    "a blank in the prior": ({"production.prior": {" ": 0.5, "spam": 0.5}}, ("production.prior",)),
    "no hour of a window": ({"production.score.window": "today"}, ("production.score.window", "found 'today'")),
    "a source without its window": ({"production.score.source": "incoming"}, ("production.score.source", "found 'incoming'")),
    "an entry as a path": ({"techniques": {"../up": {}}}, ("techniques", "../up")),
    "an entry with an escape": ({"techniques": {"\x1b[2J": {}}}, ("techniques", "\\x1b[2J")),
    "an entry with a line end": ({"techniques": {"focal\n": {}}}, ("techniques", "focal")),
    "an entry without letters": ({"techniques": {"": {}}}, ("techniques",)),
    "an entry of 300 letters": ({"techniques": {"x" * 300: {}}}, ("techniques", "at most 200")),
    "a list of entries": ({"techniques": ["focal"]}, ("techniques", "found ['focal']")),
    "no entry": ({"techniques": {}}, ("techniques", "at least 1")),
    "an unknown key with an escape": ({"train.\x1b[1mx": 1}, ("unknown key 'train.\\x1b[1mx'",)),
    "an unknown key of 20,000 letters": ({"train." + "x" * 20_000: 1}, ("not valid YAML",)),
    "a value of 20,000 letters": ({"train.device": "x" * 20_000}, ("train.device", "found 'xxx")),
    "a model without a name": ({"train.model": " "}, ("train.model", "found ' '")),
}
CROSSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a prior of unknown labels": (
        {"production.prior": {"ham": 0.5, "eggs": 0.5}},
        ("production.prior", "'eggs'", "known: ham, spam"),
    ),
    "a prior that misses a label": ({"production.prior": {"ham": 0.5, "sp\x1bam": 0.5}}, ("production.prior", "'sp\\x1bam'")),
    "costs of unknown labels": (
        {"operating_point.rule": "cost", "operating_point.costs": {"ham": {"eggs": 1}, "spam": {"ham": 1}}},
        ("operating_point.costs", "'eggs'"),
    ),
    "costs that miss a pair": (
        {"operating_point.rule": "cost", "operating_point.costs": {"ham": {"spam": 1}}},
        ("operating_point.costs", "spam"),
    ),
    "an unknown label": ({"operating_point.label": "\u2066eggs"}, ("operating_point.label", "'\\u2066eggs'")),
    "an unknown metric": ({"select.metric": "\x1b[31m"}, ("select.metric", "\\x1b[31m")),
    "an unknown technique": ({"techniques": {"mine": {"technique": "../x"}}}, ("techniques.mine", "'../x'")),
    "a date as a parameter": ({"techniques": {"mine": {"technique": 5}}}, ("techniques.mine", "5")),
    "an unknown perturbation": ({"probe.perturbations": ["\x1b[1m"]}, ("\\x1b[1m",)),
}
NAMES = {
    "empty": "",
    "blank": " ",
    "with a slash": "a/b",
    "above": "..",
    "with a line end": "a\n",
    "with a NUL": "a\0",
    "with a surrogate": "a\ud800",
    "with a smile": "a\U0001f600",
    "from right to left": "\u202ea",
    "with an escape": "\x1b[31ma",
    "of 5,000 letters": "a" * 5000,
    "an option": "-rf",
    "hidden": ".a",
    "a pattern": "*",
}


def texts() -> Iterator[Case]:
    """Names, labels and columns that are none."""
    for name, (changes, said) in TEXTS.items():
        yield Case(kind="texts in params.yaml", name=name, stage="ingest", said=said, params=changes)
    for name, (changes, said) in CROSSED.items():
        yield Case(kind="texts in params.yaml", name=name, stage="techniques", said=said, params=changes)


def arguments() -> Iterator[Case]:
    """Arguments of commands that name nothing, or no number within limits."""
    promote = dict.fromkeys(("rollback", "listing", "dry_run"), False) | {"reason": "promote", "only": None, "window": None}
    promote |= {"source": PARAMS["ingest"]["path"], "reprior": None}
    for name, value in NAMES.items():
        shown = (
            "" if name.startswith("of 5,000") else ascii(value)[1:-1].replace("\\U0001f600", "\U0001f600").replace("\\n", "")
        )
        for stage, given, words in (
            ("score", {"source": "window.csv", "window": value}, "--window is "),
            ("promote", {**promote, "reprior": value}, "no watched window "),
            ("resample", {"name": value, "seed": 0}, "names no entry of techniques"),
            ("evaluate", {"name": value}, "names no entry of techniques"),
        ):
            yield Case(kind="names", name=f"{stage} {name}", stage=stage, arguments=given, said=(words, shown))
    for name, (value, _) in NO_NUMBERS.items():
        draw = {"schedule": [0.5], "size": 10, "labelled": 0.5, "seed": 0, "source": None}
        for key, option in (("size", "--size"), ("labelled", "--labelled"), ("seed", "--seed"), ("schedule", "SHARE")):
            given = {**draw, key: [value] if key == "schedule" else value}
            yield Case(
                kind="arguments", name=f"draw {option} {name}", stage="draw", arguments=given, said=(f"{option} is ", "from ")
            )
        yield Case(
            kind="arguments",
            name=f"seed {name}",
            stage="resample",
            arguments={"name": "baseline", "seed": value},
            said=("the seed is ",),
        )
        folder = {"source": "incoming", "target": "out", "address": None, "workers": 1, "gpus": 0.0}
        for key in ("workers", "gpus"):
            yield Case(
                kind="arguments",
                name=f"score_folder {key} {name}",
                stage="score_folder",
                arguments={**folder, key: value},
                said=(f"--{key} is ", "from "),
            )


def settings() -> list[Case]:
    """All of them."""
    return [*numbers(), *yaml_files(), *texts(), *arguments()]
