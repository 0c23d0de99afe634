"""Where a classifier goes wrong: its surest mistakes, labels to doubt, similar training messages, slices of the messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from ballast.evaluation.bootstrap import wilson_interval
from ballast.evaluation.metrics import f1_of_jaccard, macro_f1

# What a share among fewer messages says is mostly chance.
LEAST_IN_SLICE = 10
# Training messages that the frequencies of n-grams are taken from, and those compared at once: both bound the memory.
FITTED_ON = 50_000
COMPARED_AT_ONCE = 20_000
TERMS = 1 << 19

Estimate = dict[str, float]


def most_confident_errors(posterior: np.ndarray, classes: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most `most` messages that are called wrong, the surest first: posterior (n, K), classes (n,)."""
    wrong = np.flatnonzero(posterior.argmax(axis=1) != classes)
    rows: np.ndarray = wrong[np.argsort(-posterior[wrong].max(axis=1), kind="stable")][:most]
    return rows


def beats_majority(predicted: np.ndarray, classes: np.ndarray) -> bool:
    """Whether predictions (n,) have a higher macro F1 than always answering the largest of classes (n,)."""
    return macro_f1(predicted, classes) > macro_f1(np.full_like(classes, np.bincount(classes).argmax()), classes)


def suspected_label_errors(posterior: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (m,) whose label is not the most probable by posterior (n, K), the least likely label first.

    With them the probability of each one's label (m,), and whether confident learning finds an issue (m,): some other class is
    more probable than it is on average among that class's own members, so that no class is doubted for being rare
    (Northcutt, Jiang and Chuang 2021, 1911.00068). On well separated data it finds few or none. The posteriors must be out of
    sample.
    """
    # Seconds of imports that nothing else here needs.
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(classes, posterior, method="self_confidence")
    issues = find_label_issues(classes, posterior, filter_by="confident_learning", n_jobs=1)
    wrong = np.flatnonzero(posterior.argmax(axis=1) != classes)
    rows = wrong[np.argsort(quality[wrong], kind="stable")]
    return rows, quality[rows], issues[rows]


def nearest_neighbours(training: Sequence[str], texts: Sequence[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `most` training texts most similar to each text (m,) and their similarities, (m, most) each.

    Similarity is the cosine of TF-IDF over character n-grams within words: fast and plain to see, and one changed letter
    or digit takes little of it away. Embeddings would find paraphrases, at a pass of an encoder over all training texts.
    """
    step = -(-len(training) // FITTED_ON)
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=TERMS, dtype=np.float32
    ).fit(training[::step])
    wanted = sparse.csr_array(vectorizer.transform(texts))
    rows = np.empty((len(texts), 0), dtype=np.int64)
    similarity = np.empty((len(texts), 0), dtype=np.float32)
    for start in range(0, len(training), COMPARED_AT_ONCE):
        block = sparse.csr_array(vectorizer.transform(training[start : start + COMPARED_AT_ONCE]))
        found = np.tile(np.arange(start, start + block.shape[0]), (len(texts), 1))
        rows = np.hstack([rows, found])
        similarity = np.hstack([similarity, (wanted @ block.T).toarray()])
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        rows, similarity = np.take_along_axis(rows, best, axis=1), np.take_along_axis(similarity, best, axis=1)
    return rows, similarity


CHARACTERISTICS = {
    "digits": r"\d",
    "a link": r"(?i)https?://|www\.|\b[\w-]+\.(?:com|net|org|info|biz|co|io|tv|uk|me|ly|example)\b",
    "a phone-like number": r"\d(?:[\s().-]?\d){6}",
    "non-ASCII": r"[^\x00-\x7f]",
}


def slices(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Masks (n,) of texts (n,) by name: all, quarters by length, with and without digits, links, phone-like numbers, non-ASCII.

    A slice without a text is left out, and so is one that holds all of them.
    """
    lengths = np.array([len(text) for text in texts])
    quarter = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths)
    found = {"all": np.ones(len(texts), dtype=bool)}
    for at in np.unique(quarter):
        inside = quarter == at
        found[f"{lengths[inside].min()} to {lengths[inside].max()} characters"] = inside
    for name, pattern in CHARACTERISTICS.items():
        matches = re.compile(pattern).search
        holds = np.array([matches(text) is not None for text in texts])
        found |= {f"with {name}": holds, f"without {name}": ~holds}
    return {name: mask for name, mask in found.items() if name == "all" or 0 < mask.sum() < len(texts)}


def proportion(share: float, trials: float, confidence: float) -> Estimate:
    """A proportion with Wilson's interval."""
    low, high = wilson_interval(share, trials, confidence)
    return {"value": share, "low": min(low, share), "high": max(high, share)}


def class_metrics(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray, confidence: float
) -> dict[str, Estimate | None] | None:
    """Precision, recall and F1 of a class in a slice: predicted (S, n) and truth (n,) booleans, groups (n,) from 0.

    The seeds (S) are counted together. Intervals are Wilson's with the number of near-duplicate groups as trials, because the
    messages of a group are right or wrong together; that of F1 is the one of the Jaccard index (`f1_of_jaccard`).
    None where the class has too few messages; precision is None where nothing was called.
    """
    if truth.sum() < LEAST_IN_SLICE:
        return None

    def trials(masks: np.ndarray) -> float:
        return float(np.mean([np.count_nonzero(np.bincount(groups[mask])) for mask in masks]))

    hits, either = float((predicted & truth).sum()), predicted | truth
    called = float(predicted.sum())
    jaccard = proportion(hits / float(either.sum()), trials(either), confidence)
    return {
        "recall": proportion(hits / float(len(predicted) * truth.sum()), trials(truth[None]), confidence),
        "precision": proportion(hits / called, trials(predicted), confidence) if called else None,
        "f1": {key: f1_of_jaccard(each) for key, each in jaccard.items()},
    }


def slice_metrics(
    predicted: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    masks: Mapping[str, np.ndarray],
    labels: Sequence[str],
    confidence: float,
) -> dict[str, dict[str, dict[str, Estimate | None] | None]]:
    """Slice -> label -> `class_metrics`: predicted (S, n), classes and groups (n,), masks (n,) of each slice, K labels."""
    return {
        name: {
            label: class_metrics(predicted[:, mask] == at, classes[mask] == at, groups[mask], confidence)
            for at, label in enumerate(labels)
        }
        for name, mask in masks.items()
    }
