"""Settings and arguments of flows: what is wrong is one line before Prefect begins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ballast.exceptions import UserError
from flows import replay
from flows.settings import check_before_dvc, window_name
from stages.store.files import write_json
from tests.bad_inputs import as_yaml
from tests.bad_settings import YAMLS

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not a number": ({"schedule": "0.1,nan"}, "a share in schedule is nan; expected a number from 0 to 1"),
    "infinite": ({"schedule": "inf"}, "a share in schedule is inf"),
    "below 0": ({"schedule": "-0.1"}, "a share in schedule is -0.1"),
    "a word": ({"schedule": "0.1,\x1b[31mhalf"}, r"--schedule '0.1,\x1b[31mhalf': expected shares such as 0.13,0.40"),
    "nothing": ({"schedule": ""}, "--schedule '': expected shares"),
    "more windows than anybody waits for": ({"schedule": ",".join(["0.1"] * 2000)}, "windows in schedule is 2000; expected"),
    "a huge window": ({"size": 10**40}, "size is 1000000"),
    "no message": ({"size": 0}, "size is 0; expected a whole number from 1 to 1,000,000"),
    "labels for more than all": ({"labelled": 1.5}, "labelled is 1.5; expected a number from 0 to 1"),
    "labels for no share": ({"labelled": float("nan")}, "labelled is nan"),
    "a negative seed": ({"seed": -1}, "seed is -1"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_replayed_is_refused_before_prefect_begins(given: dict[str, Any], said: str) -> None:
    usual: dict[str, Any] = {"schedule": "0.1", "size": 10, "labelled": 0.5, "seed": 0, "source": None}
    with pytest.raises(UserError) as refused:
        replay.main(**usual | given)
    assert said in str(refused.value)


def test_a_replay_labels_random_messages_and_those_that_the_watch_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, rows in (("truth", 'a,ham\n"b,""1",spam\nc,ham\n'), ("labels", "a,ham\n")):
        (tmp_path / "production/replay" / folder).mkdir(parents=True)
        (tmp_path / "production/replay" / folder / "w1.csv").write_text(f"id,label\n{rows}")
    write_json(tmp_path / "production/watch/w1.json", {"to_label": [{"id": 'b,"1'}, {"id": "elsewhere"}]})
    write_json(tmp_path / "production/watch/w2.json", {"to_label": [{"id": "a"}]})
    replay.deliver_labels("w1")
    assert (tmp_path / "production/labels/w1.csv").read_text() == 'id,label\na,ham\n"b,""1",spam\n'
    replay.deliver_labels("w2")
    assert [path.name for path in (tmp_path / "production/labels").iterdir()] == ["w1.csv"]


SCORE = {"source": "in/{window}", "window": "%Y", "hours": 24}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *((content, words[0]) for content, words in YAMLS.values() if words[0].startswith("expected keys")),
        *(
            (content, words[-1])
            for content, words in YAMLS.values()
            if not words[0].startswith(("expected", "found", "missing"))
        ),
        (as_yaml({"production": None}).encode(), "params.yaml: production: expected keys with values, found None"),
        (as_yaml({"production": {"score": 5}}).encode(), "params.yaml: production.score: expected keys with values, found 5"),
        *(
            (as_yaml({"production": {"score": SCORE | {"hours": hours}}}).encode(), f"production.score.hours is {found}")
            for hours, found in (
                (float("inf"), "inf"),
                (float("nan"), "nan"),
                (10**40, "1000"),
                (True, "True"),
                ("1", "'1'"),
                (None, "None"),
            )
        ),
        *(
            (
                as_yaml({"production": {"score": SCORE | {key: value}}}).encode(),
                f"production.score.{key}: expected text, found {value!r}",
            )
            for key in ("source", "window")
            for value in (None, 5, " ", ["x"])
        ),
    ],
)
def test_settings_that_a_flow_cannot_read_are_one_line(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        window_name(datetime.now(UTC))
    assert said in str(refused.value) and str(refused.value).startswith("params.yaml: ")


def test_a_url_that_dvc_cannot_track_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in ("zip://train.csv::data/raw/a.zip", "zip://a.csv::https://host/a.zip"):
        (tmp_path / "params.yaml").write_bytes(as_yaml({"ingest": {"path": source}}).encode())
        with pytest.raises(UserError) as refused:
            check_before_dvc()
        assert str(refused.value) == (
            f"params.yaml: ingest.path: {source} is a URL that DVC cannot track; for a file in an archive, set ingest.path to"
            " the archive and ingest.files to the name of the file in it"
        )
