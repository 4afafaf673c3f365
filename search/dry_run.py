"""What would a search do? Everything that can be said of it without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from search.config import SearchConfig, to_yaml
from search.describe import check_visibly, gather_visibly
from search.knowledge import Knowledge
from search.results import RunPaths
from search.space import Space

if TYPE_CHECKING:
    from search.preflight import Preflight

SAMPLED_TRIALS = 5


def describe_search(console: Console, config: SearchConfig, paths: RunPaths, *, quick: bool = False) -> None:
    """The resolved search, what it starts from, a few sampled trials, and every architecture's parameter count.

    Nothing is trained.

    Args:
        quick: reads no images and no earlier runs and builds no networks, and says so.
    """
    console.print("[bold]resolved search[/bold]")
    console.print(to_yaml(config), markup=False)
    _describe_space(console, config.search_space)
    if quick:
        _describe_samples(console, config, Knowledge())
        console.print("not looked at: images, earlier runs, architectures; --dry-run without --quick checks them")
        return
    found = check_visibly(console, config)
    knowledge = gather_visibly(console, config, found, paths)
    _describe_samples(console, config, knowledge)
    _describe_architectures(console, found)


def _describe_space(console: Console, space: Space) -> None:
    table = Table(title="space", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("parameter")
    table.add_column("values")
    for name, text in space.describe():
        table.add_row(name, text)
    console.print(table)
    if space.num_combinations is not None:
        console.print(f"{space.num_combinations:,} combinations")


def _describe_samples(console: Console, config: SearchConfig, knowledge: Knowledge) -> None:
    """Trials as the search would begin: starting points first, then draws of the sampler by the configured seed."""
    import optuna

    from search.study import StudyStore

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = config.search_space
    store = StudyStore(
        None, name="dry-run", metric=config.metric, objectives=config.objectives, sampler=config.sampler, space=space
    )
    store.begin(config.first_points(knowledge.points), space, known=knowledge.trials)
    table = Table(title="first trials", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in space.searched:
        table.add_column(name)
    for _ in range(SAMPLED_TRIALS):
        params = space.suggest(store.study.ask())
        if space.forbidden(params) is not None:
            continue
        table.add_row(*(_cell(params.get(name)) for name in space.searched))
    console.print(table)


def _describe_architectures(console: Console, found: Preflight) -> None:
    table = Table(title="architectures", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("name")
    table.add_column("parameters", justify="right")
    for arch, count in found.num_parameters.items():
        table.add_row(arch, f"{count:,}")
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
