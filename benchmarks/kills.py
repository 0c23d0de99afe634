"""Kill commands at random moments with SIGKILL, repeat them, and compare the files with those of an undisturbed run.

Writes benchmarks/kills.json: how often something was lost, doubled, blocked the next run, stayed half-written, or gave another
result. The project is small: a linear model on simulated messages. `make test-kills KILLS=10 SEED=1` draws other moments.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.killed_endpoint import BEFORE, NAME, endpoint_kill, undisturbed_endpoint
from benchmarks.killing import TASKS, Ground, kill_everything, kill_groups, patience, small_project
from benchmarks.measuring import surroundings, write_result
from benchmarks.snapshots import KINDS, differences, snapshot
from flows.prepared_python import prepared_python
from tests.flow_fixtures import prefect_server
from tests.prepared_python import IN_TESTS
from tests.project import Project

COMMAND = "make test-kills"
# Deploys a second version and makes the first its shadow.
SHADOW = "python -m stages.production.promote --reprior w1 && sed -i 's/^  shadow:.*/  shadow: \"0001\"/' params.yaml"
# The command that a flow runs for each of several trainings.
TRAIN = "python -m flows.recovery.cleanup && exec dvc --wait-for-lock repro --single-item train@tfidf-{seed}"


@dataclass(frozen=True)
class Scene:
    """Commands that start together, and the state of the project that they start from; a round tries `weight` kills of it."""

    name: str
    before: str
    commands: Sequence[Sequence[str]]
    after: str
    weight: int = 1


PYTHON, SCORE = ("python", "-m"), "stages.production.score"
SCENES = (
    # As a user runs it, except that the environment exists already.
    Scene("repro", "fresh", [("make", "-o", "setup", "repro")], "ran", 1),
    Scene("repro, two side by side", "sampled", [("sh", "-c", TRAIN.format(seed=seed)) for seed in (0, 1)], "", 1),
    Scene("promote", "ran", [(*PYTHON, "stages.production.promote")], "deployed", 2),
    Scene("score", "deployed", [(*PYTHON, SCORE, "incoming/w1.csv", "--window", "w1")], "scored", 2),
    # The deployed version scores first, then its shadow.
    Scene("score, with a shadow", "shadowed", [(*PYTHON, SCORE, "incoming/w1.csv", "--window", "w2")], "", 2),
    # Writes the messages to label, too.
    Scene("watch", "scored", [(*PYTHON, "flows.watch", "--window", "w1")], "", 1),
    Scene("export to Label Studio", "estimated", [(*PYTHON, "stages.production.label_studio", "export", "w1")], "", 1),
    Scene("import from Label Studio", "estimated", [(*PYTHON, "stages.production.label_studio", "import", TASKS)], "", 1),
    Scene("reprior", "estimated", [(*PYTHON, "stages.production.promote", "--reprior", "w1")], "", 2),
    Scene("feedback", "labelled", [(*PYTHON, "stages.production.feedback")], "fed", 2),
    Scene("retrain", "due", [(*PYTHON, "flows.retrain", "--window", "w1")], "", 1),
    # Its commands are those of `killed_endpoint`, because clients belong to it.
    Scene(NAME, BEFORE, [], "", 3),
)
# States that undisturbed commands make from another state.
STEPS = {
    "ran": ("fresh", [("dvc", "repro", "select")]),
    "sampled": ("fresh", [("dvc", "repro", "resample", "encoder")]),
    "estimated": ("scored", [(*PYTHON, "stages.production.watch", "--window", "w1")]),
    "shadowed": ("estimated", [("sh", "-c", SHADOW)]),
    "due": ("fed", [(*PYTHON, "stages.production.watch", "--window", "w1")]),
}


def undisturbed(ground: Ground, scenes: Sequence[Scene]) -> None:
    """Run each scene once to its end, and save the states that other scenes start from."""
    ground.keep("fresh")
    wanted = {scene.name for scene in scenes}
    for scene in SCENES:
        if scene.name not in wanted and (not scene.after or scene.after in STEPS):
            continue
        make(ground, scene.before)
        if scene.name == NAME:
            undisturbed_endpoint(ground)
            continue
        ground.restore(scene.before)
        began = time.monotonic()
        if wrong := ground.run(scene.commands):
            raise RuntimeError(f"{scene.name}, undisturbed: {wrong}")
        ground.seconds[scene.name] = time.monotonic() - began
        ground.expected[scene.name] = snapshot(ground.project)
        print(f"{scene.name}: undisturbed {ground.seconds[scene.name]:.1f} s", file=sys.stderr, flush=True)
        if scene.after:
            ground.keep(scene.after)
        if scene.after == "scored":
            deliver = "mkdir -p production/labels && cp labels.csv production/labels/w1.csv"
            subprocess.run(["sh", "-c", deliver], cwd=ground.project, check=True)
            ground.keep("labelled")


def make(ground: Ground, state: str) -> None:
    """Make a state by undisturbed commands, unless it exists."""
    if (ground.folder / "states" / state).exists():
        return
    base, commands = STEPS[state]
    make(ground, base)
    ground.restore(base)
    if wrong := ground.run(commands):
        raise RuntimeError(f"{state}: {wrong}")
    ground.keep(state)


def killed(ground: Ground, scene: Scene, rng: random.Random) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """Kill a scene's commands at a random moment of an undisturbed run; return how, and the commands that go on.

    If all commands have ended by then, they start again.
    """
    while True:
        ground.restore(scene.before)
        moment, whole = rng.random(), rng.random() < 0.5
        # One of two commands may go on.
        spared = len(scene.commands) > 1 and rng.random() < 0.5
        children = [ground.start(command) for command in scene.commands]
        time.sleep(moment * ground.seconds[scene.name])
        doomed = children[:1] if spared else children
        running = any(child.poll() is None for child in doomed)
        kill_everything(ground.project, children) if whole and not spared else kill_groups(doomed)
        if not running:
            kill_everything(ground.project, children)
        if running:
            how = "one of two" if spared else "everything" if whole else "its process group"
            return f"{how} at {moment:.0%}", [child for child in children if child not in doomed]


def ended(child: subprocess.Popen[bytes], limit: float) -> str:
    """Why a command that was not killed failed; nothing if it succeeded."""
    try:
        code = child.wait(limit)
    except subprocess.TimeoutExpired:
        kill_groups([child])
        return f"the other one still ran after {limit:.0f} s"
    return f"the other one failed with exit code {code}" if code else ""


def one_kill(ground: Ground, scene: Scene, rng: random.Random) -> dict[str, list[str]]:
    """Kill and repeat; return the problems afterwards, by kind."""
    how, spared = killed(ground, scene, rng)
    again = scene.commands[: len(scene.commands) - len(spared)]
    limit = patience(ground.seconds[scene.name])
    wrong = ground.run(again, limit)
    for child in spared:
        wrong = wrong or ended(child, limit)
    found: dict[str, list[str]] = (
        {"blocked": [wrong]} if wrong else differences(ground.expected[scene.name], snapshot(ground.project))
    )
    said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items()) or "as undisturbed"
    print(f"{scene.name}, {how}: {said}", file=sys.stderr, flush=True)
    return found


def surrounded(folder: Path, scenes: Sequence[Scene], python: Path | None, stack: contextlib.ExitStack) -> dict[str, str]:
    """Yield the environment of the commands, with a Prefect server if a scene needs one."""
    made = Project(folder / "project", folder / "project").environment
    made |= {"DVC_SITE_CACHE_DIR": str(folder / "project/.dvc/tmp/site"), "PYTHONPATH": str(folder / "project")}
    if python is not None:
        made["PATH"] = f"{python}{os.pathsep}{made['PATH']}"
    if {"flows.watch", "flows.retrain"} & {word for scene in scenes for command in scene.commands for word in command}:
        (folder / "prefect").mkdir()
        made |= stack.enter_context(prefect_server(folder / "prefect")).environment
    return made


def try_kills(
    kills: int, seed: int, scenes: Sequence[Scene], folder: Path, python: Path | None = None
) -> Iterator[dict[str, Counter[str]]]:
    """Kill commands of the scenes the given number of times; yield the kills and harms so far, by scene, after each kill."""
    rng = random.Random(seed)
    small_project(folder / "project", python)
    counts = {scene.name: Counter({"kills": 0} | dict.fromkeys(KINDS, 0)) for scene in scenes}
    with contextlib.ExitStack() as stack:
        ground = Ground(folder, surrounded(folder, scenes, python, stack))
        undisturbed(ground, scenes)
        drawn = [scene for scene in scenes for _ in range(scene.weight)]
        for number in range(kills):
            # Each round has all scenes, in random order.
            if number % len(drawn) == 0:
                rng.shuffle(drawn)
            scene = drawn[number % len(drawn)]
            print(f"{number + 1} of {kills}: ", end="", file=sys.stderr, flush=True)
            harm = endpoint_kill(ground, rng) if scene.name == NAME else one_kill(ground, scene, rng)
            counts[scene.name].update(["kills", *harm])
            yield counts


def result_of(counts: Mapping[str, Counter[str]], seed: int) -> dict[str, Any]:
    """The result to write for the kills so far."""
    together = {kind: sum(each[kind] for each in counts.values()) for kind in ("kills", *KINDS)}
    return {
        "tried": together["kills"],
        "seed": seed,
        "counts": together,
        "commands": {name: dict(each) for name, each in counts.items()},
        "command": f"KILLS={together['kills']} SEED={seed} {COMMAND}",
    }


def main(kills: int, seed: int, imports: bool) -> None:
    print(f"seed {seed}", file=sys.stderr)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary).resolve()
        python = None if imports else stack.enter_context(prepared_python(IN_TESTS, wait=True))
        for counts in try_kills(kills, seed, SCENES, folder, python):
            # After each kill, so that an interrupted run leaves its figures.
            result = result_of(counts, seed) | {"imports": imports} | surroundings()
            write_result("kills", result)
    harm = {kind: result["counts"][kind] for kind in KINDS}
    print(f"{result['tried']} kills: " + ", ".join(f"{count} {kind}" for kind, count in harm.items()))
    if any(harm.values()):
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--imports", action="store_true", help="let each stage import its libraries itself, which takes longer")
    main(**vars(parser.parse_args()))
