"""How is a search put into words? What is about to be searched, and what was found."""

from __future__ import annotations

from collections import Counter
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.config import SearchConfig, to_yaml
from search.ledger import Status, TrialRecord, rank
from search.lint import lint
from search.live import STATUS_NAMES, describe_params
from search.results import RunPaths
from search.space import Space

if TYPE_CHECKING:
    from search.final_summary import FinalSummary
    from search.preflight import Preflight
    from search.session import Outcome

SAMPLED_TRIALS = 5
BEST_TRIALS = 10
SHOWN_SKIPPED = 5


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
    console.print(f"{verb} [bold]{paths.name}[/bold]: {config.task.data.name}, {within}, in {_shown(paths)}")


def describe_search(console: Console, config: SearchConfig) -> None:
    """The resolved search, a few sampled trials, and every architecture's parameter count; nothing is trained."""
    console.print("[bold]resolved search[/bold]")
    console.print(to_yaml(config), markup=False)
    _describe_space(console, config.search_space)
    _describe_samples(console, config)
    _describe_architectures(console, config)


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
    return found


def _describe_images(console: Console, found: Preflight) -> None:
    data, splits = found.data, found.splits
    _, height, width, channels = data.shape
    names = "labels" if data.kind == "multilabel" else "classes"
    console.print(
        f"images: {height}x{width}, {channels} channel(s), {len(data.class_names)} {names}; "
        f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test; "
        f"{'decoded in every epoch' if data.loading == 'stream' else 'kept decoded'}: {data.loading_reason}",
        highlight=False,
    )
    if data.skipped:
        total = len(data.labels) + len(data.skipped)
        console.print(f"[yellow]{len(data.skipped)} of {total:,} images cannot be read and are left out[/yellow]:")
        for line in data.skipped[:SHOWN_SKIPPED]:
            console.print(f"  {line}", markup=False)
        if len(data.skipped) > SHOWN_SKIPPED:
            console.print(f"  and {len(data.skipped) - SHOWN_SKIPPED} more, all in the run's environment.json")


def describe_outcome(console: Console, config: SearchConfig, paths: RunPaths, outcome: Outcome) -> None:
    """What was found, how sure it is, where everything lies, and the commands that come next."""
    ranked = [record for record in rank(outcome.records, metric=config.task.metric) if _usable(record)]
    if ranked:
        console.print(_best_trials(ranked[:BEST_TRIALS], config))
    _describe_failures(console, outcome.records)
    for name, count in outcome.refused.items():
        console.print(f"{count} proposal(s) not run: {name} above {config.limits[name]:g}", highlight=False)
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
    shown = _shown(paths)
    lines = [("everything", shown)]
    if paths.report.is_file():
        lines.append(("report", f"{shown}/{paths.report.name}"))
    lines.append(("curves", f"tensorboard --logdir {shown}/trials"))
    lines.append(("study", f"optuna-dashboard {shown}/study.log"))
    if outcome.state == "finished":
        lines.append(("predict", f"python -m search.predict {shown} IMAGE..."))
    else:
        lines.append(("resume", f"python -m search.run --resume {shown}"))
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


def _describe_space(console: Console, space: Space) -> None:
    table = Table(title="space", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("parameter")
    table.add_column("values")
    for name, text in space.describe():
        table.add_row(name, text)
    console.print(table)
    if space.num_combinations is not None:
        console.print(f"{space.num_combinations:,} combinations")


def _describe_samples(console: Console, config: SearchConfig) -> None:
    """Trials as the sampler would begin: recipes first, then draws by the configured seed."""
    import optuna

    from search.samplers import build_sampler
    from search.study import enqueue_recipes

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = config.search_space
    study = optuna.create_study(sampler=build_sampler(config.sampler, trials_so_far=0, space=space))
    enqueue_recipes(study, config.starting_points, space)
    table = Table(title="first trials", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in space.searched:
        table.add_column(name)
    for _ in range(SAMPLED_TRIALS):
        params = space.suggest(study.ask())
        if space.forbidden(params) is not None:
            continue
        table.add_row(*(_cell(params.get(name)) for name in space.searched))
    console.print(table)


def _describe_architectures(console: Console, config: SearchConfig) -> None:
    found = check_visibly(console, config)
    table = Table(title="architectures", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("name")
    table.add_column("parameters", justify="right")
    for arch, count in found.num_parameters.items():
        table.add_row(arch, f"{count:,}")
    console.print(table)


def _best_trials(records: list[TrialRecord], config: SearchConfig) -> Table:
    table = Table(title="best trials, by validation", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column("trial", justify="right")
    table.add_column(config.task.metric, justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("ended")
    table.add_column("parameters", overflow="fold")
    for place, record in enumerate(records, start=1):
        score = f"{record.score:.4f}"
        ended = "interrupted" if record.status is Status.RUNNING else STATUS_NAMES[record.status]
        table.add_row(
            str(place), str(record.number), score, str(record.epochs), ended, describe_params(record.params),
            style="bold" if place == 1 else None,
        )  # fmt: skip
    return table


def _describe_failures(console: Console, records: list[TrialRecord]) -> None:
    causes = Counter((record.cause, record.message) for record in records if record.status is Status.FAILED)
    for (cause, message), count in causes.most_common(5):
        console.print(f"[red]{count} failed[/red]", end=" ")
        console.print(f"{cause}: {message}", markup=False)


def _usable(record: TrialRecord) -> bool:
    return record.score is not None and record.status is not Status.FAILED


def _shown(paths: RunPaths) -> str:
    """The run's folder as a person would type it."""
    from pathlib import Path

    root = paths.root
    return str(root.relative_to(Path.cwd())) if root.is_relative_to(Path.cwd()) else str(root)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
