"""How is a search put into words? What is about to be searched, and what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from shlex import quote
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.config import SearchConfig
from search.ledger import Status, TrialRecord, pareto_front, rank
from search.lint import lint
from search.progress import STATUS_NAMES, describe_params
from search.redaction import redacted
from search.report_pareto import shown_cost
from search.resources_config import AUTO
from search.restarts import Restarts
from search.results import RunPaths
from search.tensorboard import command_for, tunnel_to
from trainables.mirrors import mirror_of

if TYPE_CHECKING:
    from search.final_summary import FinalSummary
    from search.knowledge import Knowledge
    from search.preflight import Preflight
    from search.session import Outcome

BEST_TRIALS = 10
SHOWN_FRONT = 20
SHOWN_SKIPPED = 5
SHOWN_CLASSES = 3


def describe_start(console: Console, config: SearchConfig, paths: RunPaths, *, resumed: bool) -> None:
    """One line: what is searched, with which budget, into which folder."""
    budget = config.budget
    limits = [
        f"{budget.trials} trials" if budget.trials else "",
        f"{budget.epochs} epochs" if budget.epochs else "",
        f"{budget.time_s:g} s" if budget.time_s else "",
        f"{budget.device_hours:g} device-hours" if budget.device_hours else "",
    ]
    verb = "resuming" if resumed else "searching"
    within = " / ".join(limit for limit in limits if limit) or "every combination"
    console.print(f"{verb} [bold]{paths.name}[/bold]: {config.task.data.name}, {within}, in {_named(paths)}")
    console.print(f"[dim]curves, at any time: {escape(command_for(_shown(paths)))}[/dim]", soft_wrap=True)


def describe_tensorboard(console: Console, port: int | None) -> None:
    """Where TensorBoard is to be seen, from here and from elsewhere."""
    if port is None:
        console.print("[yellow]TensorBoard did not start[/yellow]; the search goes on without it")
        return
    console.print(
        f"TensorBoard: http://127.0.0.1:{port}/  [dim](from elsewhere: {tunnel_to(port)})[/dim]", soft_wrap=True
    )


def describe_warnings(console: Console, config: SearchConfig) -> None:
    """What looks like a slip in a search that is valid."""
    for warning in lint(config):
        console.print("[yellow]warning[/yellow]", end=" ")
        console.print(warning, markup=False)


def check_visibly(console: Console, config: SearchConfig) -> Preflight:
    """The checks before a search, with a bar while images are decoded, and a line on what was found."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from search.preflight import check_search

    columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        found = check_search(
            config, progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        )
    _describe_images(console, found)
    _describe_devices(console, config)
    _describe_fusion(console, found)
    return found


def time_fusion_visibly(console: Console, config: SearchConfig) -> tuple[SearchConfig, float]:
    """Times trials that share a device, alone and fused, and says what was found.

    Returns:
        The search, with `resources.fused: auto` replaced by what is faster; and how much faster it then is than trials
        one after the other.
    """
    from search.plan_fusion import check_can_time, decided, expected_gain, measure_gains

    if config.resources.fused == AUTO:
        check_can_time(config)
    console.print(f"timing {config.resources.trials_per_device} trials on one device, one after the other and fused")
    gains = measure_gains(config)
    for each in gains:
        why = f" ({each.reason})" if each.reason else ""
        console.print(
            f"  {each.arch}, batches of {each.batch_size}: fused {each.ratio:.2f} times as fast{why}",
            markup=False,
            highlight=False,
        )
    gain = expected_gain(config, gains)
    console.print(f"  random trials, of which few are alike: {gain:.2f} times as fast", highlight=False)
    if config.resources.fused == AUTO:
        config = decided(config, gain)
        console.print(f"chosen: [bold]fused: {str(config.resources.fused).lower()}[/bold]", highlight=False)
    return config, gain if config.resources.fused else 1.0


def gather_visibly(
    console: Console, config: SearchConfig, preflight: Preflight, paths: RunPaths | None = None
) -> Knowledge:
    """What the earlier runs of `start_from` have to say, with lines on what of it does not carry over.

    Args:
        paths: a run that may have begun, and then knows it without them.
    """
    from search.earlier_runs import find_earlier
    from search.gathering import gather
    from search.knowledge import read_knowledge
    from search.preflight import describe_hardware

    knowledge = None if paths is None else read_knowledge(paths)
    if knowledge is None:
        earlier = find_earlier(config)
        hardware = describe_hardware() if earlier else None
        knowledge = gather(config, earlier, fingerprint=preflight.data.fingerprint, hardware=hardware)
    for run in knowledge.runs:
        if run.nothing:
            console.print("[yellow]warning[/yellow]", end=" ")
        console.print("\n".join(run.lines), markup=False)
    return knowledge


def _describe_images(console: Console, found: Preflight) -> None:
    data, splits = found.data, found.splits
    _, height, width, channels = data.shape
    names = "labels" if data.kind == "multilabel" else "classes"
    console.print(
        f"images: {height}x{width}, {channels} channel(s), {len(data.class_names)} {names} "
        f"({_first(data.class_names)}); "
        f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test; "
        f"{'decoded in every epoch' if data.loading == 'stream' else 'kept decoded'}: {data.loading_reason}",
        highlight=False,
        markup=False,
    )
    if data.skipped:
        total = len(data.labels) + len(data.skipped)
        console.print(f"[yellow]{len(data.skipped)} of {total:,} images cannot be read and are left out[/yellow]:")
        for line in data.skipped[:SHOWN_SKIPPED]:
            console.print(f"  {line}", markup=False)
        if len(data.skipped) > SHOWN_SKIPPED:
            console.print(f"  and {len(data.skipped) - SHOWN_SKIPPED} more, all in the run's environment.json")


def _first(names: Sequence[str]) -> str:
    """The first names, as many as fit beside the rest: a person sees at a glance if folders were taken for classes."""
    shown = [name if len(name) <= 20 else f"{name[:19]}…" for name in names[:SHOWN_CLASSES]]
    return ", ".join([*shown, *(["…"] if len(names) > SHOWN_CLASSES else [])])


def _describe_devices(console: Console, config: SearchConfig) -> None:
    """Whether this machine has GPUs that no trial would use."""
    import torch

    found = torch.cuda.device_count()
    if found and not config.resources.gpus_per_worker:
        console.print(
            f"[yellow]warning[/yellow] resources.gpus_per_worker: trials use no GPU, found {found} on this machine; "
            "write gpus_per_worker: 1, or a share such as 0.5 where several small trials fit on one"
        )


def _describe_fusion(console: Console, found: Preflight) -> None:
    """Which trials of a device train together, where that is asked for."""
    fused = [arch for arch, reason in found.unfused.items() if not reason]
    if fused:
        console.print(f"fused, if of one batch size: trials of {', '.join(fused)}", markup=False)
    for arch, reason in found.unfused.items():
        if reason:
            console.print("[yellow]not fused[/yellow]", end=" ")
            console.print(f"{arch}: {reason}; its trials take turns", markup=False)


def describe_outcome(
    console: Console, config: SearchConfig, paths: RunPaths, outcome: Outcome, *, address: str | None = None
) -> None:
    """What was found, how sure it is, where everything lies, and the commands that come next.

    Args:
        address: of the cluster on which the search ran, if one was given.
    """
    ranked = [record for record in rank(outcome.records, metric=config.metric) if record.is_usable]
    if ranked:
        console.print(_trials("best trials, by validation", ranked[:BEST_TRIALS], config))
        if config.objectives:
            _describe_front(console, ranked, config)
    _describe_failures(console, outcome.records)
    restarts = sum((record.restarts for record in outcome.records), start=Restarts()).words
    if restarts:
        console.print(f"trials {restarts}, each from its last checkpoint", highlight=False)
    for name, count in outcome.refused.items():
        console.print(f"{count} proposal(s) not run: {name} above {config.limits[name]:g}", highlight=False)
    if outcome.refused and not outcome.records:
        console.print(
            "[yellow]no proposal kept to the limits[/yellow]: raise them, or let the space hold smaller networks"
        )
    if outcome.final is not None:
        _describe_final(console, outcome.final)
    if outcome.test is not None:
        low, high = outcome.test["interval95"]
        name, key = ("top-1", "top1") if "top1" in outcome.test else ("exact match", "exact_match")
        console.print(
            f"[bold green]test {name} {outcome.test[key]:.4f}[/bold green] "
            f"(95 % interval {low:.4f} to {high:.4f}, {outcome.test['images']} images that the search never saw) "
            f"with trial {outcome.test['trial']}"
        )
        _describe_earlier(console, outcome.test["earlier"], key=key)
    if outcome.reason:
        console.print(f"ended early: {outcome.reason}", markup=False)
    if outcome.state == "failed":
        console.print(f"[bold red]the search failed[/bold red]; the log is {_shown(paths)}/logs/search.log")
    shown, named = _shown(paths), _named(paths)
    lines = [("everything", named)]
    if paths.report.is_file():
        lines.append(("report", f"{shown}/{paths.report.name}"))
    lines.append(("curves", command_for(shown)))
    lines.append(("study", f"optuna-dashboard {quote(f'{shown}/study.log')}"))
    named = quote(named)
    if config.objectives:
        lines.append(("export", f"python -m search.export {named} --trial N"))
    if outcome.state == "finished":
        lines.append(("predict", f"python -m search.predict {named} IMAGE..."))
    else:
        more = " --extend +1h" if outcome.is_spent and outcome.state == "failed" else ""
        there = f" --address {quote(redacted(address))}" if address else ""
        lines.append(("resume", f"python -m search.run --resume {named}{more}{there}"))
        if outcome.state == "interrupted" and any(record.is_usable for record in outcome.records):
            lines.append(("finish", f"python -m search.run --resume {named} --finish{there}"))
    for label, text in lines:  # never wrapped: they are there to be copied
        console.print(f"[dim]{label:<10}[/dim]  {escape(text)}", soft_wrap=True)


def _describe_final(console: Console, final: FinalSummary) -> None:
    """The best trials trained again, and what the winner reached on the test split with each seed."""
    table = Table(title="trained again", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "in the search", "mean, other seeds", "each"):
        table.add_column(name, justify="left" if name == "each" else "right")
    for each in final.candidates:
        scores = "  ".join(f"{score:.4f}" for score in each.scores)
        style = "bold" if each.trial == final.winner else None
        table.add_row(str(each.trial), f"{each.search_score:.4f}", f"{mean(each.scores):.4f}", scores, style=style)
    console.print(table)
    for failure in final.failures:
        console.print(f"failed: {failure}", markup=False)
    trained = "on the training images" if final.refit_epochs is None else "on all images but the test"
    console.print(
        f"the winner trained {trained} with {len(final.tests)} seed(s): test {final.metric} "
        f"{'  '.join(f'{value:.4f}' for value in final.tests)}",
        highlight=False,
    )
    if final.test_interval is not None:
        center, low, high = final.test_interval
        console.print(f"  mean {center:.4f}, 95 % interval of the mean {low:.4f} to {high:.4f}", highlight=False)
    console.print(
        f"  optimism gap {final.optimism_gap:+.4f} (search less test), {final.selection_gap:+.4f} of it "
        "for having been picked",
        highlight=False,
    )


def _describe_earlier(console: Console, earlier: list[dict[str, Any]], *, key: str) -> None:
    """Other winners that saw the test split before: after several looks the best of them is an optimistic figure."""
    if earlier:
        said = ", ".join(f"{each[key]:.4f} with trial {each['trial']}" for each in earlier)
        console.print(f"[yellow]the test split was opened for earlier winners too[/yellow]: {said}")


def _describe_front(console: Console, ranked: list[TrialRecord], config: SearchConfig) -> None:
    """The trade-offs that were found: for each, no other trial is as good in everything and better in something."""
    front = set(pareto_front(ranked, metric=config.metric, objectives=config.objectives))
    best = [record for record in ranked if record.number in front]
    console.print(_trials("Pareto front", best[:SHOWN_FRONT], config))
    if len(best) > SHOWN_FRONT:
        console.print(f"and {len(best) - SHOWN_FRONT} more, all marked in leaderboard.csv", highlight=False)


def _trials(title: str, records: list[TrialRecord], config: SearchConfig) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column("trial", justify="right")
    table.add_column(config.metric, justify="right")
    for name in config.objectives:
        table.add_column(name, justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("ended")
    table.add_column("parameters", overflow="fold")
    for place, record in enumerate(records, start=1):
        score = f"{record.score:.4f}"
        costs = [shown_cost(record.objectives[name]) for name in config.objectives]
        ended = "interrupted" if record.status is Status.RUNNING else STATUS_NAMES[record.status]
        table.add_row(
            str(place), str(record.number), score, *costs, str(record.epochs), ended, describe_params(record.params),
            style="bold" if place == 1 else None,
        )  # fmt: skip
    return table


def _describe_failures(console: Console, records: list[TrialRecord]) -> None:
    causes = Counter((record.cause, record.message) for record in records if record.status is Status.FAILED)
    for (cause, message), count in causes.most_common(5):
        console.print(f"[red]{count} failed[/red]", end=" ")
        console.print(f"{cause}: {message}", markup=False)


def _named(paths: RunPaths) -> str:
    """The run as a person would name it: its folder, or where it lies in an object store."""
    mirror = mirror_of(paths.root)
    return _shown(paths) if mirror is None else mirror.uri


def _shown(paths: RunPaths) -> str:
    """The run's folder on this machine, as a person would type it."""
    from pathlib import Path

    root = paths.root
    return str(root.relative_to(Path.cwd())) if root.is_relative_to(Path.cwd()) else str(root)
