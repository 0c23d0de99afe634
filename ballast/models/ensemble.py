"""An ensemble of models that were trained alike with different seeds: the mean of their logits.

The mean of logits is, up to a constant, the logarithm of the geometric mean of the posteriors: a logarithmic opinion pool. This
pool commutes with a change of the class prior (it is "externally Bayesian") and with a temperature and bias: correcting the
mean is correcting each member. A prior, calibration and operating point that were fitted on single models apply unchanged.
A mean of posteriors must be corrected before the mean, and it is under-confident if its members are calibrated (Ranjan and
Gneiting 2010). By convexity, the log loss of the mean of logits is at most the mean log loss of the members.

Source: Genest, A Characterization Theorem for Externally Bayesian Groups (Annals of Statistics 1984).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ballast.exceptions import UserError
from ballast.models.base import Model

if TYPE_CHECKING:
    from ballast.models.shared_layers import SharedLayers

MEMBERS = "members"
LISTING = "ensemble.json"


def mean_logits(logits: Sequence[np.ndarray]) -> np.ndarray:
    """The mean (n, K) float32 of the logits (n, K) of each member.

    Examples
    --------
    >>> mean_logits([np.array([[0.0, 2.0]]), np.array([[1.0, 0.0]])])
    array([[0.5, 1. ]], dtype=float32)
    """
    return np.mean([of_member.astype(np.float64) for of_member in logits], axis=0).astype(np.float32)


@dataclass
class EnsembleModel(Model):
    """The mean of the logits of its members, which have the same labels and are of one kind.

    Layers at the bottom of an encoder that have the same weights in all members, such as frozen ones, are passed once.

    Examples
    --------
    >>> from ballast.models.prior import PriorModel
    >>> members = [PriorModel(["ham", "spam"], np.array(logits)) for logits in ([0.0, 2.0], [1.0, 0.0])]
    >>> EnsembleModel(["ham", "spam"], members).logits(["call me"])
    array([[0.5, 1. ]], dtype=float32)
    """

    kind: ClassVar[str] = "ensemble"
    labels: list[str]
    members: list[Model]

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("an ensemble needs at least one member, got none")
        for position, member in enumerate(self.members):
            if member.labels != self.labels or member.kind != self.members[0].kind:
                raise UserError(
                    f"member {position} of the ensemble is of kind {member.kind} with the labels {', '.join(member.labels)};"
                    f" expected kind {self.members[0].kind} and the labels {', '.join(self.labels)}"
                )

    @cached_property
    def shared(self) -> SharedLayers | None:
        """The layers that all members share, and those above them; None if there are none."""
        if self.members[0].kind != "encoder" or len(self.members) == 1:
            return None
        # A slow import, needed only for encoders.
        from ballast.models.shared_layers import shared_layers

        return shared_layers(self.members)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        if self.shared is not None:
            return mean_logits(self.shared.logits(texts))
        return mean_logits([member.logits(texts) for member in self.members])

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, int] | None:
        return self.members[0].token_counts(texts)

    def multiply_adds(self, texts: Sequence[str]) -> int:
        apart = sum(member.multiply_adds(texts) for member in self.members)
        return apart if self.shared is None else apart - (len(self.members) - 1) * self.shared.multiply_adds(texts)

    def save_files(self, folder: Path) -> None:
        # At the top, this import would be a cycle.
        from ballast.models.folder import save

        names = [str(position) for position in range(len(self.members))]
        for name, member in zip(names, self.members, strict=True):
            (folder / MEMBERS / name).mkdir(parents=True)
            save(member, folder / MEMBERS / name, {})
        write_listing(folder, names)

    @classmethod
    def load_files(cls, folder: Path, labels: list[str]) -> EnsembleModel:
        from ballast.models.folder import load

        listing = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        model = cls(labels, [load(folder / MEMBERS / str(name)) for name in listing[MEMBERS]])
        # Shared weights are then in memory once.
        _ = model.shared
        return model

    @property
    def n_parameters(self) -> int:
        """Number of weights; those that all members share count once."""
        together = sum(member.n_parameters for member in self.members)
        return together if self.shared is None else together - (len(self.members) - 1) * self.shared.n_parameters


def write_listing(folder: Path, names: Sequence[str]) -> None:
    """Write which subfolders of `members` in the folder of an ensemble are its members, in their order."""
    (folder / LISTING).write_text(json.dumps({MEMBERS: list(names)}, sort_keys=True) + "\n", encoding="utf-8")
