"""Ballast: techniques for imbalanced text classification, trained and compared fairly."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ballast.models.base import Model
    from ballast.models.deployed import DeployedModel

__all__ = ["__version__", "load", "load_deployed"]
__version__ = "0.2.0"


def load(folder: str | os.PathLike[str]) -> Model:
    """Load a trained model from its folder.

    The model gives raw probabilities, which are right for the class prior that its training implies. `load_deployed` applies
    the production prior and the operating point too.

    Parameters
    ----------
    folder : a folder that a training wrote, such as `models/tfidf/0`.

    Returns
    -------
    A model with `labels` (K names; `classes_` as an array), `predict(texts) -> (n,)` labels, `predict_proba(texts) -> (n, K)`
    float64 and `logits(texts) -> (n, K)` float32.

    Raises
    ------
    ballast.exceptions.UserError : a file is missing or differs from the manifest, or the folder holds a deployed version.

    Examples
    --------
    >>> import ballast
    >>> model = ballast.load("models/tfidf/0")  # doctest: +SKIP
    >>> model.predict(["Call to claim your prize!"])  # doctest: +SKIP
    array(['spam'], dtype='<U4')
    """
    from ballast.models.deployed import load_trained

    return load_trained(folder)


def load_deployed(folder: str | os.PathLike[str]) -> DeployedModel:
    """Load a deployed model: the trained model with the production prior and the operating point.

    Parameters
    ----------
    folder : `production/deployed` for the version that is deployed now, or the folder of one version, such as
        `production/deployed/0001`.

    Returns
    -------
    A model with `labels` (K names; `classes_` as an array), `predict_proba(texts) -> (n, K)` float64 on the production prior
    and `predict(texts) -> (n,)` labels of least expected cost at the operating point. Both equal what the pipeline writes when
    it scores the same texts.

    Raises
    ------
    ballast.exceptions.UserError : the folder holds no deployed version, or a file differs from what was deployed.

    Examples
    --------
    >>> import ballast
    >>> model = ballast.load_deployed("production/deployed")  # doctest: +SKIP
    >>> model.predict(["Call to claim your prize!"])  # doctest: +SKIP
    array(['spam'], dtype='<U4')
    >>> model.version.name  # doctest: +SKIP
    '0001'
    """
    from ballast.models.deployed import load_deployed as load_model

    return load_model(folder)
