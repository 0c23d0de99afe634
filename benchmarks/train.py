"""Time training beside transformers' Trainer with the same messages, model and hyper-parameters; writes train.json.

Run `python -m benchmarks.train` in a folder where the pipeline has run. Four sides take turns, once a seed: the Trainer with
defaults and dynamic padding; the Trainer tuned (batches by length, bf16 if the hardware supports it); ours with the settings of
`params.yaml`, without and with cached hidden states of the frozen layers. Each side starts from texts and ends with a trained
model. Seconds are means over the seeds. Ours trains only the layers above `train.frozen_layers`, without dropout; the second
part, `same_layers`, compares it with a tuned Trainer that trains the same layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from ballast.compute.precision import use_bf16
from ballast.evaluation.bootstrap import Draws, bootstrap_draws
from ballast.evaluation.comparison import compare
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.seed_variation import with_seed_variation
from ballast.evaluation.statistic import LabelledScores
from ballast.models.base import Model
from ballast.models.encoder import EncoderModel, choose_device
from ballast.models.frozen_layers import Arrays, freeze
from ballast.models.pretrained import encoder_source
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.training.fine_tune import fine_tune, set_dropout
from benchmarks.measuring import read_result, surroundings, write_result
from stages.store.baseline_data import baseline_data
from stages.store.encoder_settings import encoder_settings
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params

RESAMPLES = 2000
CONFIDENCE = 0.95
DEFAULTS, TUNED, OURS, OURS_KEPT = "trainer_defaults", "trainer_tuned", "ours", "ours_with_kept_states"
SAME_LAYERS = "trainer_tuned_same_layers"
# Sizes of the square matrices that measure the rate of the hardware.
MATRIX_SIZES = (256, 2048)
SECONDS_OF_PRODUCTS = 0.5
# The lower end of the interval of the F1 difference must lie above minus this margin.
LEAST_F1_DIFFERENCE = -0.02

Side = Callable[[TrainingData, TrainingSettings], Model]


def by_trainer(data: TrainingData, settings: TrainingSettings, same_layers: bool = False, **tuning: object) -> Model:
    """Train with the Trainer: all layers with dropout, or the same layers as ours without dropout."""
    source = encoder_source(settings.model)
    torch.manual_seed(settings.seed)
    # Ours sets it for the whole process.
    torch.use_deterministic_algorithms(False)
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(data.label_names), dtype=torch.float32)
    if same_layers:
        freeze(network, settings.frozen_layers)
        set_dropout(network, settings.dropout)
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer(list(data.texts), truncation=True, max_length=settings.max_length)["input_ids"]
    rows = [{"input_ids": each, "labels": int(label)} for each, label in zip(ids, data.labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=not sys.stderr.isatty(),
            use_cpu=choose_device(settings.device).type == "cpu",
            **tuning,
        )
        Trainer(network, arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer)).train()
    return EncoderModel(data.label_names, network, tokenizer, settings.max_length, settings.precision)


def sides(bf16: bool) -> dict[str, Side]:
    """The sides to time, by name."""
    kept: dict[str, Arrays] = {}

    def keep(fingerprint: str, compute: Callable[[], Arrays]) -> Arrays:
        if fingerprint not in kept:
            kept[fingerprint] = compute()
        return kept[fingerprint]

    def ours(data: TrainingData, settings: TrainingSettings) -> Model:
        return fine_tune(Technique(), dataclasses.replace(data, corpus=()), settings)

    def ours_kept(data: TrainingData, settings: TrainingSettings) -> Model:
        return fine_tune(Technique(), data, dataclasses.replace(settings, cache=keep))

    tuning = {"train_sampling_strategy": "group_by_length", "bf16": bf16}
    return {
        OURS: ours,
        OURS_KEPT: ours_kept,
        SAME_LAYERS: partial(by_trainer, same_layers=True, **tuning),
        TUNED: partial(by_trainer, **tuning),
        DEFAULTS: by_trainer,
    }


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The hardware's best rate of matrix products, in operations (multiplications and additions) a second."""
    found = 0.0
    for size in MATRIX_SIZES:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        begun = time.perf_counter()
        while time.perf_counter() - begun < SECONDS_OF_PRODUCTS:
            started = time.perf_counter()
            torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize()
            found = max(found, 2 * size**3 / (time.perf_counter() - started))
        # Emulated bf16 would take a minute for one large product.
        if 2 * MATRIX_SIZES[-1] ** 3 / found > SECONDS_OF_PRODUCTS:
            break
    return found


def best_rates(known: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The best rates by type so far, in 10^9 operations a second: other processes can only make a rate lower."""
    found = {str(each).removeprefix("torch."): matrix_rate(each, device) / 1e9 for each in (torch.float32, torch.bfloat16)}
    return {name: round(max(rate, known.get(name, 0.0)), 1) for name, rate in found.items()}


def of_rows(data: TrainingData, rows: np.ndarray) -> TrainingData:
    """Some of the training messages."""
    texts = [data.texts[row] for row in rows]
    return dataclasses.replace(data, texts=texts, labels=data.labels[rows], weights=data.weights[rows])


def operations(data: TrainingData, settings: TrainingSettings) -> float:
    """Operations of our training in matrix products, per message and epoch.

    Counted on all messages, because smaller sets are padded more.
    """
    threads = torch.get_num_threads()
    # The counter counts its own thread only.
    torch.set_num_threads(1)
    try:
        with FlopCounterMode(display=False) as counter:
            fine_tune(Technique(), dataclasses.replace(data, corpus=()), settings)
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops() / (len(data.texts) * settings.epochs)


def f1_difference(ours: list[np.ndarray], theirs: list[np.ndarray], messages: Messages, label: str) -> dict[str, float]:
    """The difference of a label's test F1, ours minus theirs, over all seeds; paired bootstrap over near-duplicate groups."""
    test = messages.test()
    classes, groups = test["class"].to_numpy(), np.unique(test["group"], return_inverse=True)[1]
    metric = f"{label}.f1"
    draws = {}
    for name, of_seeds in {"ours": ours, "theirs": theirs}.items():
        scored = [LabelledScores(messages.names, classes, each, groups, np.ones(len(messages.names))) for each in of_seeds]
        statistics = [Decisions(each) for each in scored]
        everything = np.ones((1, groups.max() + 1), dtype=np.float32)
        values = bootstrap_draws(
            lambda counts, of=statistics: {metric: np.mean([each(counts)[metric] for each in of], axis=0)},
            int(groups.max()) + 1,
            RESAMPLES,
            seed=0,
        )
        seeds = np.array([each(everything)[metric][0] for each in statistics])
        right = np.stack([each.argmax(axis=1) == classes for each in of_seeds])
        draws[name] = Draws(values=values, seeds={metric: seeds}, correct=right)
    compared = compare(with_seed_variation(draws), "theirs", [metric], CONFIDENCE, frozenset())
    entry: Any = compared["ours"]["metrics"][metric]
    return {"value": round(entry["difference"], 4), "low": round(entry["low"], 4), "high": round(entry["high"], 4)}


def timed(
    sides: Mapping[str, Side], seeds: Sequence[int], data: TrainingData, settings: TrainingSettings, texts: Sequence[str]
) -> Iterator[tuple[dict[str, list[float]], dict[str, list[np.ndarray]]]]:
    """Yield the seconds and the logits of each side so far, after each seed."""
    # Otherwise only the first training would pay for this.
    for side in sides.values():
        side(of_rows(data, np.arange(min(64, len(data.texts)))), settings)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    logits: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for seed in seeds:
        for name, side in sides.items():
            started = time.perf_counter()
            model = side(data, dataclasses.replace(settings, seed=seed))
            seconds[name].append(time.perf_counter() - started)
            logits[name].append(model.logits(texts))
            print(f"seed {seed}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
        yield seconds, logits


@dataclass(frozen=True)
class Task:
    """What all sides train on and predict: training data, settings, texts to predict, and the rarest label."""

    messages: Messages
    data: TrainingData
    params: dict[str, Any]
    texts: list[str]
    label: str
    device: torch.device
    bf16: bool

    @property
    def settings(self) -> TrainingSettings:
        """The settings of ours."""
        return TrainingSettings(**self.params, seed=0)


def read_task(messages_used: int | None) -> Task:
    """Read the messages and settings of the project; train on all messages or on a sample."""
    params = encoder_settings(read_params().train)
    messages = read_messages(["text", "group"])
    train, test = messages.train(0), messages.test()
    if messages_used is not None:
        train = train.sample(messages_used, random_state=0)
    data = baseline_data(messages, train)
    label = messages.names[int(messages.counts(train).argmin())]
    device = choose_device(params["device"])
    bf16 = use_bf16(params["precision"], device)
    return Task(messages, data, params, test["text"].tolist(), label, device, bf16)


def all_layers(task: Task, seconds: dict[str, list[float]], logits: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """The result of the first part: ours beside the Trainer with defaults and tuned."""
    passes = len(task.data.texts) * task.settings.epochs
    total = {name: sum(times) / len(times) for name, times in seconds.items()}
    return {
        "ratio_to_defaults": round(total[DEFAULTS] / total[OURS], 2),
        "ratio_to_tuned": round(total[TUNED] / total[OURS], 2),
        "ratio_to_defaults_with_kept_states": round(total[DEFAULTS] / total[OURS_KEPT], 2),
        "ratio_to_tuned_with_kept_states": round(total[TUNED] / total[OURS_KEPT], 2),
        "messages_per_second": round(passes / total[OURS]),
        "messages_per_second_of": {name: round(passes / mean, 1) for name, mean in total.items()},
        "operations_per_message_gflop": round(operations(task.data, task.settings) / 1e9, 3),
        "f1_difference": f1_difference(logits[OURS], logits[DEFAULTS], task.messages, task.label),
        "f1_difference_to_tuned": f1_difference(logits[OURS], logits[TUNED], task.messages, task.label),
        "label": task.label,
        "seeds": len(logits[OURS]),
        "seconds": rounded(seconds),
        "messages": len(task.data.texts),
        "bf16": task.bf16,
        "params": task.params,
        **surroundings(),
    }


def same_layers(task: Task, seconds: dict[str, list[float]], logits: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """The result of the second part: ours beside the tuned Trainer that trains the same layers."""
    return {
        "ratio": round(sum(seconds[SAME_LAYERS]) / sum(seconds[OURS]), 2),
        "f1_difference": f1_difference(logits[OURS], logits[SAME_LAYERS], task.messages, task.label),
        "seconds": rounded(seconds),
        "seeds": len(logits[OURS]),
        "messages": len(task.data.texts),
        "params": task.params,
        "date": surroundings()["date"],
    }


def main(seeds: Sequence[int], messages_used: int | None, same_layers_only: bool) -> None:
    """Measure, and write after each seed; fail if F1 may be too far below that of a peer."""
    result = read_result("train")
    if same_layers_only and not result:
        raise SystemExit("error: --same-layers-only: train.json has no first part of this machine and these versions")
    task = read_task(messages_used)
    peers = sides(task.bf16)
    second_part = {OURS: peers[OURS], SAME_LAYERS: peers.pop(SAME_LAYERS)}
    if not same_layers_only:
        for seconds, logits in timed(peers, seeds, task.data, task.settings, task.texts):
            result |= all_layers(task, seconds, logits)
            add_share(result, task.device)
            write_result("train", result)
    for seconds, logits in timed(second_part, seeds, task.data, task.settings, task.texts):
        result["same_layers"] = same_layers(task, seconds, logits)
        add_share(result, task.device)
        write_result("train", result)

    differences = {
        DEFAULTS: result["f1_difference"],
        TUNED: result["f1_difference_to_tuned"],
        SAME_LAYERS: result["same_layers"]["f1_difference"],
    }
    below = {name: -difference["low"] for name, difference in differences.items() if difference["low"] <= LEAST_F1_DIFFERENCE}
    if below:
        raise SystemExit("\n".join(f"error: F1 may be {by:.3f} below that of {name}" for name, by in below.items()))


def add_share(result: dict[str, Any], device: torch.device) -> None:
    """Add to a result the rates of matrix products and the share that our training reaches."""
    rates = result["matrix_rate_gflops"] = best_rates(result.get("matrix_rate_gflops", {}), device)
    made = result["operations_per_message_gflop"] * result["messages_per_second"]
    result["share_of_matrix_rate"] = round(made / rates["bfloat16" if result["bf16"] else "float32"], 3)


def rounded(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The seconds, to a tenth."""
    return {name: [round(each, 1) for each in of] for name, of in seconds.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--messages", dest="messages_used", type=int, help="train on so many only")
    parser.add_argument("--same-layers-only", action="store_true", help="the second part only; the first stays in the file")
    main(**vars(parser.parse_args()))
