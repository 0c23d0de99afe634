"""What the stages of the tests' projects import besides what `flows.prepared_python` imports for every run."""

from __future__ import annotations

from flows.prepared_python import LIBRARIES

IN_TESTS = (
    *LIBRARIES,
    "evidently",
    "great_expectations",
    "imblearn.over_sampling",
    "quapy",
    "sklearn.svm",
)
