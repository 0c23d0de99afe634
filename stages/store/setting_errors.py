"""Errors of the library name an argument; users of the pipeline need the key of params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ballast.exceptions import ArgumentError, TrainingError, UserError
from stages.store.project import PROJECT


@contextmanager
def settings_from(section: str) -> Iterator[None]:
    """Name the keys of a section of params.yaml in errors about arguments that come from it."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(f"{PROJECT.params}: {section}.{error}") from error
    except TrainingError as error:
        raise UserError(f"{PROJECT.params}: {section}: {error}") from error
