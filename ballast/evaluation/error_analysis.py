"""Error analysis: most confident errors, suspected label errors, similar training messages, metrics by slice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from ballast.evaluation.bootstrap import wilson_interval
from ballast.evaluation.metrics import f1_of_jaccard, macro_f1

# Shares among fewer messages are mostly chance.
MINIMUM_IN_SLICE = 10
# Training messages from which n-gram frequencies are fitted, and messages compared at once. Both bound the memory.
FITTED_ON = 50_000
COMPARED_AT_ONCE = 20_000
TERMS = 1 << 19

Estimate = dict[str, float]


def most_confident_errors(posterior: np.ndarray, classes: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most `most` misclassified messages, the most confident first, from posterior (n, K) and classes (n,)."""
    wrong = np.flatnonzero(posterior.argmax(axis=1) != classes)
    rows: np.ndarray = wrong[np.argsort(-posterior[wrong].max(axis=1), kind="stable")][:most]
    return rows


def beats_majority(predicted: np.ndarray, classes: np.ndarray) -> bool:
    """Whether predictions (n,) have a higher macro F1 for classes (n,) than the majority class."""
    return macro_f1(predicted, classes) > macro_f1(np.full_like(classes, np.bincount(classes).argmax()), classes)


def suspected_label_errors(posterior: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (m,) with a label that is not the most probable class by posterior (n, K), the least likely label first.

    Also returns the probability of each label (m,), and whether confident learning reports an issue (m,): another class is more
    probable than it is on average among its own members, so rare classes are not suspected for being rare (Northcutt, Jiang
    and Chuang 2021, 1911.00068). On well separated data it reports few or none. Posteriors must be out of sample.
    """
    # A slow import, needed only here.
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(classes, posterior, method="self_confidence")
    issues = find_label_issues(classes, posterior, filter_by="confident_learning", n_jobs=1)
    wrong = np.flatnonzero(posterior.argmax(axis=1) != classes)
    rows = wrong[np.argsort(quality[wrong], kind="stable")]
    return rows, quality[rows], issues[rows]


def nearest_neighbours(training: Sequence[str], texts: Sequence[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `most` training texts that are most similar to each text (m,), and their similarities: (m, most) each.

    Similarity is the cosine of TF-IDF over character n-grams within words. It is fast, easy to understand, and robust to single
    changed letters or digits. Embeddings would find paraphrases, but need a pass of an encoder over all training texts.
    """
    step = -(-len(training) // FITTED_ON)
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=TERMS, dtype=np.float32
    ).fit(training[::step])
    queries = sparse.csr_array(vectorizer.transform(texts))
    rows = np.empty((len(texts), 0), dtype=np.int64)
    similarity = np.empty((len(texts), 0), dtype=np.float32)
    for start in range(0, len(training), COMPARED_AT_ONCE):
        block = sparse.csr_array(vectorizer.transform(training[start : start + COMPARED_AT_ONCE]))
        block_rows = np.tile(np.arange(start, start + block.shape[0]), (len(texts), 1))
        rows = np.hstack([rows, block_rows])
        similarity = np.hstack([similarity, (queries @ block.T).toarray()])
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

    Slices that contain no text or all texts are left out.
    """
    lengths = np.array([len(text) for text in texts])
    quarter = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths)
    masks = {"all": np.ones(len(texts), dtype=bool)}
    for number in np.unique(quarter):
        inside = quarter == number
        masks[f"{lengths[inside].min()} to {lengths[inside].max()} characters"] = inside
    for name, pattern in CHARACTERISTICS.items():
        matches = re.compile(pattern).search
        contains = np.array([matches(text) is not None for text in texts])
        masks |= {f"with {name}": contains, f"without {name}": ~contains}
    return {name: mask for name, mask in masks.items() if name == "all" or 0 < mask.sum() < len(texts)}


def proportion(share: float, trials: float, confidence: float) -> Estimate:
    """A proportion with Wilson's interval."""
    low, high = wilson_interval(share, trials, confidence)
    return {"value": share, "low": min(low, share), "high": max(high, share)}


def class_metrics(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray, confidence: float
) -> dict[str, Estimate | None] | None:
    """Precision, recall and F1 of a class in a slice: predicted (S, n) and truth (n,) booleans, groups (n,) from 0.

    The S seeds are counted together. Intervals are Wilson's, with near-duplicate groups as trials, because the messages of a
    group are not independent. The interval of F1 follows from that of the Jaccard index (`f1_of_jaccard`).
    Returns None if the class has too few messages. Precision is None if no message is predicted as the class.
    """
    if truth.sum() < MINIMUM_IN_SLICE:
        return None

    def trials(masks: np.ndarray) -> float:
        return float(np.mean([np.count_nonzero(np.bincount(groups[mask])) for mask in masks]))

    hits, either = float((predicted & truth).sum()), predicted | truth
    assigned = float(predicted.sum())
    jaccard = proportion(hits / float(either.sum()), trials(either), confidence)
    return {
        "recall": proportion(hits / float(len(predicted) * truth.sum()), trials(truth[None]), confidence),
        "precision": proportion(hits / assigned, trials(predicted), confidence) if assigned else None,
        "f1": {key: f1_of_jaccard(value) for key, value in jaccard.items()},
    }


def slice_metrics(
    predicted: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    masks: Mapping[str, np.ndarray],
    labels: Sequence[str],
    confidence: float,
) -> dict[str, dict[str, dict[str, Estimate | None] | None]]:
    """Slice -> label -> `class_metrics`, from predicted (S, n), classes (n,), groups (n,), masks (n,) by slice, K labels."""
    return {
        name: {
            label: class_metrics(predicted[:, mask] == index, classes[mask] == index, groups[mask], confidence)
            for index, label in enumerate(labels)
        }
        for name, mask in masks.items()
    }
