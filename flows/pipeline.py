"""Run the stages of dvc.yaml as a Prefect flow: a task per stage, parallel or remote trainings, retries, artifacts.

Without targets, the flow brings everything up to date, as `dvc repro` does. Without PREFECT_API_URL, it starts a temporary
server.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.dvcfile import PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from joblib import cpu_count  # type: ignore[import-untyped]
from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.printable import LONGEST_TITLE, one_line
from ballast.parameters import YEAR_HOURS, check_number
from flows import artifacts
from flows.commands import run_dvc, stopping_commands
from flows.failures import StageFailed, readable_errors
from flows.recovery.cleanup import recover
from flows.settings import check_before_dvc, nodes
from flows.state import read_state

# Starting DVC takes more than a second, so only trainings run one by one.
PARALLEL = "train"
LEADERBOARD = "reports/leaderboard.json"
REPORT = "reports/index.html"


def plan(targets: Sequence[str]) -> tuple[dict[str, list[str]], set[str]]:
    """The plan of `dvc repro`: stages by family (all members of a matrix), in order, and the files that they write.

    Raises UserError if DVC cannot read its files or does not know a target.
    """
    try:
        with Repo() as repo:
            graph = get_active_graph(repo.index.graph)
            planned = set(plan_repro(graph, collect_stages(repo, targets or [PROJECT_FILE])))
            stages = [stage for stage in repo.index.stages if stage in planned and stage.cmd]
            families: dict[str, list[str]] = {}
            order: TopologicalSorter[str] = TopologicalSorter()
            for stage in stages:
                families.setdefault(family(stage), []).append(stage.addressing)
                order.add(family(stage), *(family(other) for other in graph.successors(stage) if other.cmd))
            outputs = {str(output) for stage in stages for output in stage.outs}
            return {name: families[name] for name in order.static_order()}, outputs
    except CycleError as error:
        raise UserError(
            f"dvc.yaml: members of {', '.join(error.args[1])} depend on each other; a flow runs whole stages"
        ) from error
    except DvcException as error:
        raise UserError(str(error)) from error
    # DVC raises these for files with unexpected content.
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise UserError(f"DVC cannot read dvc.yaml, dvc.lock or params.yaml: {error or type(error).__name__}") from error


def family(stage: Any) -> str:
    """The name of a stage in dvc.yaml, without the suffix that a matrix adds."""
    return str(stage.addressing).partition("@")[0]


def is_transient(_task: object, _run: object, state: Any) -> bool:
    """Whether a failed task may succeed later."""
    return isinstance(state.data, StageFailed) and state.data.transient


@task(task_run_name="{name}", cache_policy=NO_CACHE, retry_condition_fn=is_transient)
def repro(name: str, stages: list[str], threads: int | None = None) -> None:
    """Bring stages up to date with `dvc repro`; raises StageFailed."""
    recover(get_run_logger().warning)
    environment = {} if threads is None else {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    # The flow orders the stages, so DVC need not check the earlier ones.
    run_dvc(name, ["repro", "--single-item", *stages], get_run_logger().info, environment)


def run_parallel(repro: Task[..., None], stages: Sequence[str], concurrency: int) -> None:
    """Run independent stages, `concurrency` at a time; after a failure none starts. Raises the first StageFailed."""
    threads = max(1, cpu_count() // concurrency) if concurrency > 1 else None
    waiting, running, failures = list(stages), set[PrefectFuture[None]](), list[StageFailed]()
    while running or (waiting and not failures):
        while waiting and not failures and len(running) < concurrency:
            name = waiting.pop(0)
            running.add(repro.submit(name, [name], threads))
        done = next(as_completed(list(running)))
        running.remove(done)
        try:
            done.result()
        except StageFailed as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def run_name() -> str:
    """The name of a run, from its targets."""
    return one_line("pipeline: " + (", ".join(flow_run.parameters.get("targets") or ()) or "all stages"), LONGEST_TITLE)


@flow(name="pipeline", flow_run_name=run_name)
def pipeline(
    targets: list[str] | None = None, concurrency: int = 1, retries: int = 2, retry_delay_seconds: float = 10.0
) -> None:
    """Bring the stages of dvc.yaml up to date; raises StageFailed, and UserError for invalid settings."""
    check_number("concurrency", concurrency, 1, 1024, whole=True)
    check_number("retries", retries, 0, 1000, whole=True)
    check_number("retry_delay_seconds", retry_delay_seconds, 0, 3600 * YEAR_HOURS)
    check_before_dvc()
    recover(get_run_logger().warning)
    families, outputs = plan(targets or [])
    attempt = repro.with_options(retries=retries, retry_delay_seconds=retry_delay_seconds)
    try:
        with stopping_commands():
            for name, stages in families.items():
                if name == PARALLEL and nodes()["train"] == "here":
                    run_parallel(attempt, stages, concurrency)
                    continue
                if name == PARALLEL:
                    # Slow import, needed only for remote trainings. Afterwards, DVC finds all of them up to date.
                    from flows.nodes.dispatch import train_elsewhere

                    train_elsewhere(stages, retries)
                attempt.submit(name, stages).result()
    except StageFailed as failure:
        lines = "\n".join(failure.lines)
        artifacts.markdown(f"**{failure.headline}**\n\n```\n{lines}\n```", key="failure", description=failure.headline)
        raise
    publish(outputs)


def publish(outputs: set[str]) -> None:
    """Publish what this run brought up to date as artifacts: the leaderboard as a table, a link to the report."""
    if LEADERBOARD in outputs:
        board = read_state(Path(LEADERBOARD))
        artifacts.table(leaderboard_table(board), key="leaderboard", description="at the operating point, out of fold")
    if REPORT in outputs:
        create_link_artifact(Path(REPORT).resolve().as_uri(), link_text="report", key="report")


def leaderboard_table(board: dict[str, Any]) -> list[dict[str, str]]:
    """A row per technique, the best first: the metric that selects, then others of the operating point, out of fold."""
    prior: dict[str, float] = board["production_prior"]
    rarest, selection = min(prior, key=prior.__getitem__), board["selection"]
    # The best candidate comes first, and losses have positive differences. A technique that is no candidate comes last.
    difference = {name: abs(candidate["difference"]) for name, candidate in selection["candidates"].items()}
    metrics = dict.fromkeys([selection["metric"], "macro_f1", f"{rarest}.f1", f"{rarest}.recall", f"{rarest}.precision"])
    return [
        {"technique": name, "selected": "yes" if name == selection["technique"] else ""}
        | {metric: "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entry["out_of_fold"][metric]) for metric in metrics}
        for name, entry in sorted(board["techniques"].items(), key=lambda item: difference.get(item[0], float("inf")))
    ]


def main(targets: list[str], concurrency: int) -> None:
    with readable_errors():
        pipeline(targets, concurrency)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("targets", nargs="*", help="stages to run, with all that they depend on (default: all)")
    arguments.add_argument("--concurrency", type=int, default=1, metavar="N", help="number of parallel trainings (default 1)")
    run(main, arguments.parse_args())
