"""The tables of the speed page, from the JSON files that the benchmarks write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stages.store.files import read_json

Result = Mapping[str, Any]
PICTURE = "![Seconds and memory of each stage by number of messages](../benchmarks/growth.svg)"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def interval(estimate: Mapping[str, float]) -> str:
    """A signed difference with its interval."""
    return "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**estimate)


def training(result: Result) -> list[str]:
    """Ballast beside transformers' Trainer."""
    speed, layers = result["messages_per_second_of"], result["params"]["frozen_layers"]
    same = result["same_layers"]
    rows = [
        [f"Ballast, lowest {layers} layers frozen", f"{speed['ours']:,.0f}", "", ""],
        ["Ballast, outputs of the frozen layers cached", f"{speed['ours_with_kept_states']:,.0f}", "", ""],
        [
            "Trainer, tuned, the same layers frozen",
            f"{same['messages'] * same['params']['epochs'] / np.mean(same['seconds']['trainer_tuned_same_layers']):,.0f}",
            f"{same['ratio']:.1f}",
            interval(same["f1_difference"]),
        ],
    ]
    for name, key, difference in (
        ("tuned", "tuned", "f1_difference_to_tuned"),
        ("at its defaults", "defaults", "f1_difference"),
    ):
        faster = f"{result[f'ratio_to_{key}']:.1f}"
        rows.append([f"Trainer, {name}", f"{speed[f'trainer_{key}']:,.0f}", faster, interval(result[difference])])
    precision = "bf16" if result["bf16"] else "fp32"
    return [
        "Fine-tuning with Ballast and with the Trainer of transformers:"
        f" {result['messages']:,} messages, {result['params']['epochs']} epochs, {result['seeds']} seeds. *Tuned* means batches"
        " by length, and bf16 if the hardware supports it."
        f" Ballast reaches {result['share_of_matrix_rate']:.0%} of the machine's {precision} matrix rate.",
        "",
        *table(["training", "messages per second", "Ballast is faster by a factor of", "F1 of Ballast minus its F1"], rows),
    ]


def scoring(result: Result) -> list[str]:
    """Ballast beside transformers' pipeline, and the memory of long windows."""
    speed = result["messages_per_second"]
    names = {"linear": "linear model", "encoder": "encoder"}
    memory = [
        [names[kind], f"{int(rows):,}", f"{measured['peak_mb']:,}", f"{measured['seconds']:.0f}"]
        for kind in names
        for rows, measured in sorted(result["memory"].get(kind, {}).items(), key=lambda item: int(item[0]))
    ]
    rows = [
        ["Ballast", f"{speed:,.0f}", ""],
        ["transformers' pipeline", f"{speed / result['ratio']:,.0f}", f"{result['ratio']:.1f}"],
    ]
    return [
        f"{result['messages']:,} messages. Both give the same label to {result['agreement']:.2%} of them. Ballast scores"
        f" repeated texts once; without them, the factor is {result['ratio_without_repeats']:.1f}.",
        "",
        *table(["scoring", "messages per second", "Ballast is faster by a factor of"], rows),
        *table(["window scored by", "messages", "peak memory (MB)", "seconds"], memory),
    ]


def folder(result: Result) -> list[str]:
    """A folder of files, scored by workers of Ray and without Ray."""
    few, many = result["workers"]
    alone = result["messages"] / result["seconds_of_one_process"]
    rows = [
        [f"{count} worker{'s' * (count > 1)} of Ray", f"{result['messages_per_second'][str(count)]:,.0f}"]
        for count in (few, many)
    ]
    return [
        f"{result['messages']:,} messages in {result['files']} files. With {many} workers instead of {few}, scoring is faster"
        f" by a factor of {result['ratio']:.2f}, or {result['ratio_with_starting']:.2f} including the start of Ray.",
        "",
        *table(["a folder scored by", "messages per second"], [["one process, without Ray", f"{alone:,.0f}"], *rows]),
    ]


def whole_run(result: Result) -> list[str]:
    """How long a run takes, and where its time goes, most first."""
    full, parts = result["full"], []
    for name, family in result["full"]["families"].items():
        if name == "train":
            parts += [(f"train: {part}", family["stages"], family[part]) for part in ("training", "scoring", "start")]
        else:
            parts.append(("DVC itself" if name == "dvc" else name, family["stages"], family["seconds"]))
    rows = [
        [name, f"{stages:.0f}", f"{seconds:.0f}", f"{seconds / full['seconds']:.0%}"]
        for name, stages, seconds in sorted(parts, key=lambda part: -part[2])
    ]
    return [
        f"`make repro` takes {full['seconds'] / 60:.1f} minutes for {full['techniques']} entries after the set-up. A second run"
        f" finds nothing to do and takes {full['second_repro_seconds']:.0f} seconds, or {full['second_flow_seconds']:.0f}"
        " seconds as a flow.",
        "",
        *table(["part of a run", "stages", "seconds", "share"], rows),
    ]


def growth(result: Result) -> list[str]:
    """Seconds and memory of a million messages."""
    rows = [
        [name.replace("_", " "), f"{max(0.0, stage['seconds_per_million']):.0f}", f"{stage['mb_per_million']:,}"]
        for name, stage in result["stages"].items()
        if len(stage["measured"]) > 1
    ]
    return [
        "The encoder has two small layers and trains for one epoch, because the table shows how stages grow, not what a network"
        " costs.",
        "",
        *table(["stage", "seconds per million messages", "MB per million messages"], rows),
        PICTURE,
        "",
    ]


def evaluation(result: Result) -> list[str]:
    """How long all techniques take to evaluate."""
    return [
        f"{result['techniques']} techniques with {result['seeds']} seeds, {result['test_messages']:,} test messages and"
        f" {result['resamples']:,} resamples: {result['evaluate_seconds']:.0f} seconds for `evaluate`,"
        f" {result['compare_seconds']:.0f} seconds for `compare`.",
        "",
    ]


def reading(result: Result) -> list[str]:
    """Our reader of csv beside pyarrow's and that of pandas."""
    readers = {"ballast": "Ballast", "pyarrow": "pyarrow", "pandas": "pandas"}
    rows = [
        [name, *(f"{used['processor_seconds']:.1f} s, {used['peak_mb']:,} MB" for used in map(file["readers"].get, readers))]
        for name, file in result["files"].items()
    ]
    return [
        f"Processor seconds and peak memory of a process that reads {result['rows']:,} rows of csv. The file of one row shows"
        " what the start of the process costs. The reader of Ballast also detects how the file is written, rejects malformed"
        " rows and records the line of each row.",
        "",
        *table(["file", *readers.values()], rows),
    ]


def endpoint(result: Result) -> list[str]:
    """The endpoint beside a plain application around transformers' pipeline, by the number of clients."""
    rows = [
        [name, clients, *(f"{measured[key]:,.1f}" for key in ("requests_per_second", "p50_ms", "p99_ms", "processor_ms"))]
        for title, of_model in (("encoder", result["encoder"]), ("linear model", result["linear"]))
        for clients, sides in sorted(of_model.items(), key=lambda item: int(item[0]))
        for side, measured in sides.items()
        for name in [f"Ballast, {title}" if side == "endpoint" else f"FastAPI around transformers' pipeline, {title}"]
    ]
    return [
        "Each client sends one message at a time and waits for the answer. The endpoint scores waiting messages together and"
        " writes them to the disk before it answers. The plain application does neither. The processor time is that of all"
        f" processes of the server. When the encoder was measured, {result['load']:.0f} processes waited for the processor.",
        "",
        *table(["server", "clients", "requests per second", "p50 (ms)", "p99 (ms)", "processor (ms per request)"], rows),
    ]


def soak(result: Result) -> list[str]:
    """Failed requests and memory of the endpoint under load for minutes."""
    rows = [
        [
            name,
            *(f"{measured[key]:,.0f}" for key in ("minutes", "clients", "requests", "promotions", "failed")),
            *(f"{measured[key]:,.1f}" for key in ("mb_at_start", "mb_at_end")),
        ]
        for name, measured in result["models"].items()
    ]
    head = ["model", "minutes", "clients", "requests", "promotions", "failed requests", "MB at the start", "MB at the end"]
    return [
        "Clients send one message after the other, with short breaks, while other versions are deployed. The memory is"
        " the median over the second and over the last fifth of the time.",
        "",
        *table(head, rows),
    ]


# The file of each section, its heading and its writer.
SECTIONS: dict[str, tuple[str, Callable[[Result], list[str]]]] = {
    "train": ("Training", training),
    "score": ("Scoring", scoring),
    "score_folder": ("Scoring a folder", folder),
    "endpoint": ("The endpoint", endpoint),
    "soak": ("The endpoint under load", soak),
    "overhead": ("A whole run", whole_run),
    "growth": ("A million messages more", growth),
    "evaluate": ("Evaluation", evaluation),
    "reading": ("Reading csv", reading),
}


def speed_sections(results: Mapping[str, Result]) -> str:
    """One Markdown section per benchmark; one that has not run, or whose result lacks a number, has no section."""
    lines: list[str] = []
    for name, (heading, write) in SECTIONS.items():
        with suppress(KeyError):
            result = results[name]
            where = f"`benchmarks/{name}.json`: {result['device']}, {result['cpus']} cores, {result['date']}."
            lines += [f"## {heading}", "", *write(result), where, ""]
    return "\n".join(lines)


def speed_tables(root: Path) -> str:
    """The sections of all benchmarks that have run."""
    paths = {name: root / f"benchmarks/{name}.json" for name in SECTIONS}
    return speed_sections({name: read_json(path) for name, path in paths.items() if path.exists()})
