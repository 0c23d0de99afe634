"""The keys of `params.yaml`, each with its type and limits; an unknown key is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ballast.cli import parser, run
from ballast.exceptions import suggestion
from stages.store.data_sections import Ingest, Validate
from stages.store.production_sections import OperatingPointSettings, Production
from stages.store.project import PROJECT
from stages.store.section import Section, checked, read_yaml
from stages.store.training_sections import Evaluate, Nodes, Search, Train
from stages.store.values import (
    Few,
    Finite,
    Name,
    Plain,
    Text,
)


class Probe(Section):
    texts: Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(min_length=1, max_length=10_000)]
    perturbations: Annotated[list[Text], Field(max_length=1000)]
    padding: Text


# Former keys of `select` and what replaces them.
REPLACED = {
    "tolerance": "remove it and set rule to one_standard_error, which measures what the tolerance assumed",
    "at": "remove it; techniques are selected by their decisions at the operating point",
}


class Select(Section):
    metric: Text
    rule: Literal["one_standard_error", "best"]
    constraints: dict[str, Finite]
    safe_only: bool
    deploy: Literal["seed", "ensemble"]

    @model_validator(mode="before")
    @classmethod
    def replaced_keys(cls, content: Any) -> Any:
        """Raise ValueError for keys of former versions."""
        for key, advice in REPLACED.items():
            if isinstance(content, dict) and key in content:
                raise ValueError(f"{key} is no longer a key: {advice}")
        return content


class Report(Section):
    show_texts: bool
    mistakes: Few
    sample: Annotated[int, Field(ge=1, le=10_000_000)]


class Params(Section):
    ingest: Ingest
    validate_: Annotated[Validate, Field(alias="validate")]
    production: Production
    train: Train
    techniques: Annotated[dict[Name, dict[str, Plain] | None], Field(min_length=1, max_length=1000)]
    search: Search
    evaluate: Evaluate
    operating_point: OperatingPointSettings
    probe: Probe
    select: Select
    report: Report
    nodes: Nodes

    @model_validator(mode="after")
    def text_is_no_id(self) -> Params:
        score, ingest = self.production.score, self.ingest
        text, id_ = score.text_column or ingest.text_column, score.id_column or ingest.id_column
        if text == id_:
            raise ValueError(f"production.score: text_column and id_column are both {text!r}; expected two columns")
        return self

    @model_validator(mode="after")
    def known_entries(self) -> Params:
        for name in self.nodes.gpus_of:
            if name not in self.techniques:
                raise ValueError(f"nodes.gpus_of names {name!r}: {suggestion(name, self.techniques)}")
        return self


def read_params(path: Path = PROJECT.params) -> Params:
    """Read and validate `params.yaml`; raises UserError that names the key and what was expected."""
    return checked(Params, read_yaml(path), str(path))


def main() -> None:
    read_params()


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
