"""The paths of a project: this module defines the path of every file that the stages read or write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """The files and folders of a checkout; `root` is its folder, by default the working directory."""

    root: Path = Path()

    # Settings and code.

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def graph(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def dvc_config(self) -> Path:
        """Untracked, but the pipeline does not run without it where remotes need credentials."""
        return self.root / ".dvc/config.local"

    # Data.

    @property
    def messages(self) -> Path:
        return self.root / "data/messages.parquet"

    @property
    def feedback(self) -> Path:
        return self.root / "data/feedback.parquet"

    @property
    def ingest(self) -> Path:
        return self.root / "data/ingest.json"

    @property
    def rejected(self) -> Path:
        """The rows of the source that are no messages."""
        return self.root / "data/rejected.csv"

    @property
    def validation(self) -> Path:
        return self.root / "data/validation.json"

    @property
    def data_docs(self) -> Path:
        return self.root / "data/data_docs"

    @property
    def search(self) -> Path:
        return self.root / "data/search.json"

    @property
    def encoder(self) -> Path:
        """The learning rate and frozen layers of every training of the encoder."""
        return self.root / "data/encoder.json"

    @property
    def cards(self) -> Path:
        return self.root / "data/techniques"

    @property
    def sources(self) -> Path:
        return self.root / "data/sources"

    @property
    def samples(self) -> Path:
        return self.root / "data/samples"

    @property
    def states(self) -> Path:
        return self.root / "data/states"

    # Trainings.

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def logits(self) -> Path:
        return self.root / "logits"

    @property
    def curves(self) -> Path:
        return self.root / "curves"

    @property
    def durations(self) -> Path:
        return self.root / "durations"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of running trainings.

        Not an output of DVC, which removes outputs before a stage runs. BALLAST_CHECKPOINTS names another folder, so that a
        training can go on in another container.
        """
        return Path(os.environ.get("BALLAST_CHECKPOINTS", self.root / "checkpoints"))

    # Results.

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations"

    @property
    def probes(self) -> Path:
        return self.root / "probes"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def leaderboard(self) -> Path:
        return self.reports / "leaderboard.json"

    @property
    def claims(self) -> Path:
        return self.reports / "claims.json"

    @property
    def technique_metrics(self) -> Path:
        return self.root / "metrics"

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics.json"

    @property
    def probe_table(self) -> Path:
        return self.reports / "probe.csv"

    @property
    def perturbation_table(self) -> Path:
        return self.reports / "perturbations.csv"

    @property
    def errors(self) -> Path:
        return self.reports / "errors.json"

    @property
    def relabel(self) -> Path:
        """Suspected label errors for a person to correct."""
        return self.reports / "relabel.csv"

    @property
    def levers(self) -> Path:
        return self.reports / "levers.json"

    @property
    def precision_recall(self) -> Path:
        return self.reports / "precision_recall.csv"

    @property
    def training_loss(self) -> Path:
        return self.reports / "training_loss.csv"

    @property
    def selected(self) -> Path:
        return self.root / "selected"

    @property
    def model_card(self) -> Path:
        return self.selected / "model_card.md"

    # Production: state outside the graph, so that the graph has no cycle.

    @property
    def production(self) -> Path:
        return self.root / "production"

    @property
    def deployed(self) -> Path:
        return self.production / "deployed"

    @property
    def current(self) -> Path:
        return self.deployed / "current.json"

    @property
    def answered(self) -> Path:
        """The messages that the endpoint answered, by window."""
        return self.production / "answered"

    @property
    def scored(self) -> Path:
        return self.production / "scored"

    @property
    def shadow(self) -> Path:
        """The scores of each window by the version that `production.shadow` names."""
        return self.production / "shadow"

    @property
    def quarantine(self) -> Path:
        return self.production / "quarantine"

    @property
    def to_label(self) -> Path:
        """The messages of each window that people should label."""
        return self.production / "to_label"

    @property
    def labels(self) -> Path:
        return self.production / "labels"

    @property
    def labelled(self) -> Path:
        """Labelled production messages; data/feedback.parquet takes the new ones from here."""
        return self.production / "feedback.parquet"

    @property
    def watch(self) -> Path:
        return self.production / "watch"

    @property
    def retrain(self) -> Path:
        return self.production / "retrain"

    @property
    def replay(self) -> Path:
        return self.production / "replay"

    # Studies.

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def study_results(self) -> Path:
        return self.studies / "results"

    @property
    def training(self) -> Path:
        """In the folder of a study's variant: the messages that each technique was trained on."""
        return self.root / "training.json"


# The project in the working directory.
PROJECT = Project()
