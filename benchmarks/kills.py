"""Kill commands at random moments with SIGKILL, repeat them, and compare what is there then with an undisturbed run.

Writes benchmarks/kills.json: how often something was lost, was there twice, blocked the next run, was left half-written, or
gave another result. The project is small: a linear model of made-up messages. `KILLS=10 SEED=1 make test-kills` is another one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.measuring import surroundings, write_result
from benchmarks.snapshots import KINDS, differences, snapshot
from tests.flow_fixtures import prefect_server
from tests.project import Project, corpus, project_copy

COMMAND = "make test-kills"
# A rerun that takes as many times the seconds of the undisturbed run, and a minute more, is blocked.
PATIENCE = 10
# What a flow does for each of the trainings that it runs side by side.
TRAIN = "python -m flows.leftovers && exec dvc --wait-for-lock repro --single-item train@tfidf-{seed}"


@dataclass(frozen=True)
class Scene:
    """Commands that start together, and from which state of the project; `weight` of them are tried in a round."""

    name: str
    before: str
    commands: Sequence[Sequence[str]]
    after: str
    weight: int = 1


PYTHON = ("python", "-m")
SCENES = (
    # As a user runs it, but for the environment, which is there.
    Scene("repro", "fresh", [("make", "-o", "setup", "repro")], "ran", 1),
    Scene("repro, two side by side", "sampled", [("sh", "-c", TRAIN.format(seed=seed)) for seed in (0, 1)], "", 1),
    Scene("promote", "ran", [(*PYTHON, "stages.promote")], "deployed", 2),
    Scene("score", "deployed", [(*PYTHON, "stages.score", "incoming/w1.csv", "--window", "w1")], "scored", 2),
    Scene("watch", "scored", [(*PYTHON, "flows.watch", "--window", "w1")], "", 1),
    Scene("reprior", "estimated", [(*PYTHON, "stages.promote", "--reprior", "w1")], "", 2),
    Scene("feedback", "labelled", [(*PYTHON, "stages.feedback")], "fed", 2),
    Scene("retrain", "due", [(*PYTHON, "flows.retrain", "--window", "w1")], "", 1),
)
# States that are made from another one by commands that nobody kills.
STEPS = {
    "sampled": ("fresh", [("dvc", "repro", "resample")]),
    "estimated": ("scored", [(*PYTHON, "stages.watch", "--window", "w1")]),
    "due": ("fed", [(*PYTHON, "stages.watch", "--window", "w1")]),
}


@dataclass
class Ground:
    """A small project in one folder, whose states are kept beside it."""

    folder: Path
    environment: Mapping[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    expected: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def keep(self, state: str) -> None:
        """Keep the project as it is under a name."""
        copied(self.project, self.folder / "states" / state)

    def restore(self, state: str) -> None:
        """Put the project into a state that was kept."""
        subprocess.run(["rm", "-rf", str(self.project)], check=True)
        copied(self.folder / "states" / state, self.project)

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own; what it prints goes to a file."""
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.project,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, commands: Sequence[Sequence[str]], limit: float = 1200.0) -> str:
        """Run commands that start together to their ends: why one failed; nothing when none did."""
        (self.folder / "output.log").unlink(missing_ok=True)
        children = [self.start(command) for command in commands]
        deadline = time.monotonic() + limit
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_everything(self.project, children)
                return f"still running after {limit:.0f} s"
        if all(child.returncode == 0 for child in children):
            return ""
        return self.said()

    def said(self) -> str:
        """The last lines of what the commands printed."""
        return " | ".join((self.folder / "output.log").read_text(errors="replace").splitlines()[-8:])


def copied(folder: Path, target: Path) -> None:
    """Copy a folder as it is; a file with two names stays one file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(folder), str(target)], check=True)


def working_in(folder: Path) -> list[psutil.Process]:
    """All processes that are at work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_groups(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the process groups of commands; what they started in other groups is to end with them."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    for child in children:
        child.wait()


def kill_everything(folder: Path, children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill commands and all that works in a folder, as the end of a container does."""
    kill_groups(children)
    while left := working_in(folder):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def small_project(folder: Path, python: Path | None) -> None:
    """A project with few messages and one linear model, a window of another class prior, and its labels."""
    project: Project = project_copy(folder, python)
    project.write("messages.csv", corpus({"ham": 900, "spam": 150}))
    window = corpus({"ham": 240, "spam": 160}, seed=1)
    window = window.assign(id=[f"m{row}" for row in range(len(window))])
    project.write("incoming/w1.csv", window[["id", "text"]])
    project.write("labels.csv", window[["id", "label"]])
    project.edit(
        {
            "ingest.source": "file",
            "ingest.path": "messages.csv",
            "techniques": {"tfidf": {}},
            "train.seeds": [0, 1],
            "evaluate.resamples": 100,
            "production.score.id_column": "id",
            "production.retrain.margin": 0.3,
            "report.sample": 200,
        }
    )


def undisturbed(ground: Ground, scenes: Sequence[Scene]) -> None:
    """Run each scene once to its end, and keep the states that the others begin with."""
    ground.keep("fresh")
    wanted = {scene.name for scene in scenes}
    for scene in SCENES:
        if not made(ground, scene.before):
            continue
        if scene.name not in wanted and not scene.after:
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


def made(ground: Ground, state: str) -> bool:
    """Whether a state is there, after it was made where it can be."""
    kept = ground.folder / "states" / state
    if not kept.exists() and state in STEPS:
        base, commands = STEPS[state]
        if not made(ground, base):
            return False
        ground.restore(base)
        if wrong := ground.run(commands):
            raise RuntimeError(f"{state}: {wrong}")
        ground.keep(state)
    return kept.exists()


def killed(ground: Ground, scene: Scene, rng: random.Random) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """Kill a scene's commands at a random moment of an undisturbed run: how, and those that go on.

    Where all have ended by then, they are begun again.
    """
    while True:
        ground.restore(scene.before)
        moment, whole = rng.random(), rng.random() < 0.5
        # Of two side by side one may go on.
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
    """Why a command that nobody killed failed; nothing when it did not."""
    try:
        code = child.wait(limit)
    except subprocess.TimeoutExpired:
        kill_groups([child])
        return f"the other one still ran after {limit:.0f} s"
    return f"the other one failed with exit code {code}" if code else ""


def one_kill(ground: Ground, scene: Scene, rng: random.Random) -> dict[str, list[str]]:
    """Kill and repeat: what is wrong afterwards, by its kind."""
    how, spared = killed(ground, scene, rng)
    again = scene.commands[: len(scene.commands) - len(spared)]
    limit = PATIENCE * ground.seconds[scene.name] + 60
    wrong = ground.run(again, limit)
    for child in spared:
        wrong = wrong or ended(child, limit)
    found: dict[str, list[str]] = (
        {"blocked": [wrong]} if wrong else differences(ground.expected[scene.name], snapshot(ground.project))
    )
    said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items()) or "as undisturbed"
    print(f"{scene.name}, {how}: {said}", file=sys.stderr, flush=True)
    return found


def try_kills(
    kills: int, seed: int, scenes: Sequence[Scene], folder: Path, python: Path | None = None
) -> dict[str, Counter[str]]:
    """Kill commands of some scenes so many times in a folder: by scene how many kills, and how many with each kind of harm."""
    rng = random.Random(seed)
    small_project(folder / "project", python)
    counts = {scene.name: Counter({"kills": 0} | dict.fromkeys(KINDS, 0)) for scene in scenes}
    (folder / "prefect").mkdir()
    with prefect_server(folder / "prefect") as server:
        project = Project(folder / "project", folder / "project")
        path = project.environment["PATH"] if python is None else f"{python}{os.pathsep}{project.environment['PATH']}"
        own = {"DVC_SITE_CACHE_DIR": str(folder / "project/.dvc/tmp/site"), "PYTHONPATH": str(folder / "project"), "PATH": path}
        ground = Ground(folder, {**project.environment, **server.environment, **own})
        undisturbed(ground, scenes)
        round_of = [scene for scene in scenes for _ in range(scene.weight)]
        for number in range(kills):
            # Each round has all scenes, in an order of its own.
            if number % len(round_of) == 0:
                rng.shuffle(round_of)
            scene = round_of[number % len(round_of)]
            print(f"{number + 1} of {kills}: ", end="", file=sys.stderr, flush=True)
            found = one_kill(ground, scene, rng)
            counts[scene.name].update(["kills", *found])
    return counts


def main(kills: int, seed: int) -> None:
    print(f"seed {seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        counts = try_kills(kills, seed, SCENES, Path(folder).resolve())
    together = {kind: sum(each[kind] for each in counts.values()) for kind in ("kills", *KINDS)}
    result = {
        "tried": kills,
        "seed": seed,
        "counts": together | {f"kills of {name}": each["kills"] for name, each in counts.items()},
        "commands": {name: dict(each) for name, each in counts.items()},
        "command": f"KILLS={kills} SEED={seed} {COMMAND}",
    }
    write_result("kills", result | surroundings())
    print(", ".join(f"{count} {kind}" for kind, count in together.items()))
    if any(count for kind, count in together.items() if kind != "kills"):
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    main(**vars(parser.parse_args()))
