"""Time training beside transformers' Trainer, same messages, model, epochs, batch size and learning rate; writes train.json.

Run as `python -m benchmarks.train` in a folder where the pipeline has run. Four sides train in turn, once a seed: the Trainer
at its defaults with dynamic padding; the Trainer tuned (batches by length, bf16 where the hardware has it); ours as
`params.yaml` has it, once from nothing and once with the states of frozen layers that an earlier technique's training kept.
Each begins with texts and ends with a trained model. Seconds are means over the seeds. Ours trains the layers above
`train.frozen_layers` only, without dropout; `same_layers`, a second part, is ours beside a tuned Trainer that does so too.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from ballast.compute.precision import in_bf16
from ballast.evaluation.bootstrap import Draws, bootstrap_draws
from ballast.evaluation.comparison import compare, with_seed_variation
from ballast.evaluation.metrics import Decisions, LabelledScores
from ballast.models.base import Model
from ballast.models.encoder import EncoderModel, choose_device
from ballast.models.frozen_layers import Arrays, freeze
from ballast.models.pretrained import encoder_source
from ballast.technique import Technique, TrainingData, TrainingSettings
from ballast.training.fine_tune import fine_tune, set_dropout
from benchmarks.measuring import read_result, surroundings, write_result
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params

RESAMPLES = 2000
CONFIDENCE = 0.95
DEFAULTS, TUNED, OURS, OURS_KEPT = "trainer_defaults", "trainer_tuned", "ours", "ours_with_kept_states"
SAME_LAYERS = "trainer_tuned_same_layers"
# Of the square matrices whose products tell how fast the hardware multiplies.
MATRIX_SIZES = (256, 2048)
SECONDS_OF_PRODUCTS = 0.5
# An F1 that may be this far below theirs counts as below it.
LEAST_F1_DIFFERENCE = -0.02

Side = Callable[[TrainingData, TrainingSettings], Model]


def by_trainer(data: TrainingData, settings: TrainingSettings, same_layers: bool = False, **tuning: object) -> Model:
    """Train as a user of transformers would: all layers with dropout, or the layers that ours trains, without."""
    source = encoder_source(settings.model)
    torch.manual_seed(settings.seed)
    # Ours has set it for this process.
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
    """What is timed, by name."""
    kept: dict[str, Arrays] = {}

    def keep(fingerprint: str, compute: Callable[[], Arrays]) -> Arrays:
        if fingerprint not in kept:
            kept[fingerprint] = compute()
        return kept[fingerprint]

    def ours(data: TrainingData, settings: TrainingSettings) -> Model:
        return fine_tune(Technique(), dataclasses.replace(data, corpus=()), settings)

    def ours_kept(data: TrainingData, settings: TrainingSettings) -> Model:
        return fine_tune(Technique(), data, dataclasses.replace(settings, keep=keep))

    tuning = {"train_sampling_strategy": "group_by_length", "bf16": bf16}
    return {
        OURS: ours,
        OURS_KEPT: ours_kept,
        SAME_LAYERS: partial(by_trainer, same_layers=True, **tuning),
        TUNED: partial(by_trainer, **tuning),
        DEFAULTS: by_trainer,
    }


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The hardware's best rate of matrix products, in multiplications and additions a second."""
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
    """The best rates by type in 10^9 a second, those known already among them: what else runs can only make them lower."""
    found = {str(each).removeprefix("torch."): matrix_rate(each, device) / 1e9 for each in (torch.float32, torch.bfloat16)}
    return {name: round(max(rate, known.get(name, 0.0)), 1) for name, rate in found.items()}


def of_rows(data: TrainingData, rows: np.ndarray) -> TrainingData:
    """Some of the training messages."""
    texts = [data.texts[row] for row in rows]
    return dataclasses.replace(data, texts=texts, labels=data.labels[rows], weights=data.weights[rows])


def operations(data: TrainingData, settings: TrainingSettings) -> float:
    """Multiplications and additions of our training, for each message and epoch, in matrix products alone.

    Of all messages, because fewer are padded more.
    """
    threads = torch.get_num_threads()
    # The counter sees its own thread only.
    torch.set_num_threads(1)
    try:
        with FlopCounterMode(display=False) as counter:
            fine_tune(Technique(), dataclasses.replace(data, corpus=()), settings)
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops() / (len(data.texts) * settings.epochs)


def f1_difference(ours: list[np.ndarray], theirs: list[np.ndarray], messages: Messages, label: str) -> dict[str, float]:
    """A label's F1 on test, ours less theirs, by the logits of all seeds, paired over near-duplicate groups."""
    test = messages.of("test")
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
    """Seconds of each side's trainings and logits of texts by its models so far, after each seed."""
    # What the first training alone would pay for.
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


def main(seeds: Sequence[int], messages_used: int | None, same_layers_only: bool) -> None:
    """Measure, and write after each seed."""
    params = read_params().train.settings()
    messages = read_messages(["text", "group"])
    train, test = messages.of("train"), messages.of("test")
    if messages_used is not None:
        train = train.sample(messages_used, random_state=0)
    data = TrainingData(
        texts=train["text"].tolist(),
        labels=train["class"].to_numpy(),
        weights=np.ones(len(train)),
        label_names=messages.names,
        corpus=messages.table["text"].tolist(),
    )
    label = messages.names[int(messages.counts("train").argmin())]
    settings = TrainingSettings(**params, seed=0)
    device = choose_device(settings.device)
    bf16 = in_bf16(settings.precision, device)
    passes, texts = len(data.texts) * settings.epochs, test["text"].tolist()
    result = read_result("train")
    if same_layers_only and not result:
        raise SystemExit("error: --same-layers-only: no first part of this machine and these versions is in train.json")
    every = sides(bf16)
    alike = {OURS: every[OURS], SAME_LAYERS: every.pop(SAME_LAYERS)}
    if not same_layers_only:
        each_operations = operations(data, settings)
        for seconds, logits in timed(every, seeds, data, settings, texts):
            total = {name: sum(each) / len(each) for name, each in seconds.items()}
            result |= {
                "ratio_to_defaults": round(total[DEFAULTS] / total[OURS], 2),
                "ratio_to_tuned": round(total[TUNED] / total[OURS], 2),
                "ratio_to_defaults_with_kept_states": round(total[DEFAULTS] / total[OURS_KEPT], 2),
                "ratio_to_tuned_with_kept_states": round(total[TUNED] / total[OURS_KEPT], 2),
                "messages_per_second": round(passes / total[OURS]),
                "messages_per_second_of": {name: round(passes / each, 1) for name, each in total.items()},
                "operations_per_message_gflop": round(each_operations / 1e9, 3),
                "f1_difference": f1_difference(logits[OURS], logits[DEFAULTS], messages, label),
                "f1_difference_to_tuned": f1_difference(logits[OURS], logits[TUNED], messages, label),
                "label": label,
                "seeds": len(logits[OURS]),
                "seconds": rounded(seconds),
                "messages": len(data.texts),
                "bf16": bf16,
                "params": params,
                **surroundings(),
            }
            add_share(result, device)
            write_result("train", result)
    for seconds, logits in timed(alike, seeds, data, settings, texts):
        result["same_layers"] = {
            "ratio": round(sum(seconds[SAME_LAYERS]) / sum(seconds[OURS]), 2),
            "f1_difference": f1_difference(logits[OURS], logits[SAME_LAYERS], messages, label),
            "seconds": rounded(seconds),
            "seeds": len(logits[OURS]),
            "messages": len(data.texts),
            "params": params,
            "date": surroundings()["date"],
        }
        add_share(result, device)
        write_result("train", result)

    differences = {
        DEFAULTS: result["f1_difference"],
        TUNED: result["f1_difference_to_tuned"],
        SAME_LAYERS: result["same_layers"]["f1_difference"],
    }
    below = {name: -each["low"] for name, each in differences.items() if each["low"] <= LEAST_F1_DIFFERENCE}
    if below:
        raise SystemExit("\n".join(f"error: F1 may be {by:.3f} below that of {name}" for name, by in below.items()))


def add_share(result: dict[str, Any], device: torch.device) -> None:
    """Put into a result the rates of matrix products and the share of them that our training makes use of."""
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
