"""Which parts of a report are tables and bars rather than charts? Importances, rungs, time, failures, settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from search.config import to_yaml
from search.importance import Importance, group_shares, importance_problem
from search.ledger import Status, TrialRecord, rank
from search.rank_correlation import MIN_TRIALS, RungCorrelation
from search.report_figures import timeline_figure
from search.report_html import Html, duration, join, param_value, section, table, tag
from search.report_pareto import shown_cost
from search.report_source import ReportSource
from search.restarts import Restarts

STATUS_NAMES = {
    Status.WAITING: "waiting",
    Status.RUNNING: "unfinished",
    Status.PAUSED: "paused",
    Status.COMPLETED: "completed",
    Status.STOPPED: "stopped early",
    Status.OUT_OF_BUDGET: "out of budget",
    Status.FAILED: "failed",
}
_SHOWN_FAILURES = 12
_METHOD = (
    "How much each parameter decides whether a trial is among the best tenth (PED-ANOVA, over completed and stopped "
    "trials). The upright mark is what a parameter without any influence can reach by chance."
)


def importance_section(source: ReportSource, importances: tuple[Importance, ...]) -> Html:
    """What each parameter, and each group of parameters, had to do with the score."""
    if not source.domains or not source.records:
        return Html("")
    problem = importance_problem(source.records, domains=source.domains)
    if problem is not None or not importances:
        return section("importance", "Which parameters mattered", tag("p", problem or "Nothing could be told."))
    chance = {each.name for each in importances if each.share <= each.noise}
    widest = max(max(each.share, min(each.noise, 1.0)) for each in importances)
    bars = join(_bar(each.name, each.share, widest=widest, noise=each.noise) for each in importances)
    if len(chance) == len(importances):
        return section(
            "importance",
            "Which parameters mattered",
            tag("p", "No parameter stands out from chance: too few trials, or none that decides alone."),
            tag("details", tag("summary", "What the method says all the same"), tag("p", _METHOD, class_="note"), bars),
        )
    groups = group_shares(importances)
    sound = {each.group for each in importances if each.name not in chance}
    by_group = (_bar(name, share, widest=1.0, faint=name not in sound) for name, share in groups.items())
    return section(
        "importance",
        "Which parameters mattered",
        bars,
        tag("p", f"No more than chance: {', '.join(each.name for each in importances if each.name in chance)}.",
            class_="note") if chance else None,
        # A group of one parameter says nothing that its parameter does not.
        *((tag("h3", "By group"), join(by_group)) if 1 < len(groups) < len(importances) else ()),
        note=_METHOD,
    )  # fmt: skip


def rung_section(source: ReportSource, correlations: tuple[RungCorrelation, ...]) -> Html:
    """How many trials reached each rung, and whether the scores there foretold the final ones."""
    if not correlations or not source.ranked:
        return Html("")
    header = ["epoch", "reached it", "went on", "trained to the end", "Spearman", "Kendall", "place of the best trial"]
    rows = (
        [
            each.epoch,
            each.reached,
            each.passed,
            each.finished,
            "too few" if each.spearman is None else f"{each.spearman:.2f}",
            "too few" if each.kendall is None else f"{each.kendall:.2f}",
            "" if each.winner_place is None else f"{each.winner_place} of {each.reached}",
        ]
        for each in correlations
    )
    return section(
        "rungs",
        "Early stopping",
        table(header, rows, numeric=range(7), caption="Trials at each epoch of comparison"),
        note="Whether scores at an early epoch order the trials as their final scores do: 1 is the same order, 0 none. "
        f"Over the trials that trained to their end, if at least {MIN_TRIALS} did; they were chosen for their early "
        "scores, which makes the correlation smaller than it would be over all.",
    )


def time_section(source: ReportSource) -> Html:
    """Where the search's time went, as far as it was recorded."""
    spent = [record for record in source.records if record.train_s > 0]
    if not spent:
        return Html("")
    total = sum(record.train_s for record in spent)
    seconds_of = {status: sum(each.train_s for each in spent if each.status is status) for status in Status}
    by_fate = sorted(((status, each) for status, each in seconds_of.items() if each), key=lambda pair: -pair[1])
    rows: list[list[object]] = [
        [f"training and validating, trials {STATUS_NAMES[status]}", duration(seconds), f"{100 * seconds / total:.0f} %"]
        for status, seconds in by_fate
    ]
    rows.append(["training and validating, all trials", duration(total), "100 %"])
    read_s, val_s = (sum(getattr(record, stage) for record in spent) for stage in ("read_s", "val_s"))
    stages = {
        "reading and augmenting images": read_s,
        "training steps": total - read_s - val_s,
        "validating": val_s,
    }
    if val_s:  # which older runs do not have
        rows += [[f"of it, {stage}", duration(each), f"{100 * each / total:.0f} %"] for stage, each in stages.items()]
    inside = sum(end - start for start, end in source.times.values())
    waiting = inside - sum(record.train_s for record in spent if record.number in source.times)
    resumed = bool(source.environment.get("resumed"))
    fused = bool(source.config.resources.fused)
    if source.times and waiting > 0 and not resumed:
        rows.append(
            [
                f"in trials, but neither, summed over trials: waiting for {'their turn' if fused else 'a worker'}, "
                "starting, building, saving",
                duration(waiting),
                "",
            ]
        )
    elapsed = source.summary.get("elapsed_s")
    if elapsed:
        rows.append(["from the first trial to the last, by the clock", duration(elapsed), ""])
        # Of trials that are trained together each takes its share of their device's time.
        what = "devices at work" if fused else "trials at work at a time"
        rows.append([f"{what}, on average", f"{total / elapsed:.2f}", ""])
    bar = tag(
        "div",
        *(
            tag("span", class_=f"s-{_slug(status)}", style=f"flex:{seconds:.3f}", title=STATUS_NAMES[status])
            for status, seconds in by_fate
        ),
        class_="stack",
        role="img",
        aria_label="Share of the time by how the trials ended",
    )
    return section(
        "time",
        "Where the time went",
        bar,
        table(["", "time", "share"], rows, numeric=(1, 2), caption="Time by purpose"),
        timeline_figure(source),
        note="The run was resumed, so what lies between the trials' start and end includes pauses." if resumed else "",
    )


def failure_section(records: Iterable[TrialRecord]) -> Html:
    """Failed trials by cause, with the first message of each and the trials it hit; and how often trials went on."""
    records = list(records)
    restarts = sum((record.restarts for record in records), start=Restarts()).words
    failed = [record for record in records if record.status is Status.FAILED]
    causes = Counter((record.cause or "unknown", record.message or "") for record in failed)
    rows = []
    for (cause, message), count in causes.most_common(_SHOWN_FAILURES):
        same = (each.number for each in failed if (each.cause or "unknown", each.message or "") == (cause, message))
        numbers = list(same)
        listed = ", ".join(map(str, numbers[:10])) + (" …" if len(numbers) > 10 else "")
        rows.append([cause, tag("div", message, class_="message"), count, listed])
    if not rows and not restarts:
        return Html("")
    more = len(causes) - len(rows)
    caption = "Failed trials by cause"
    return section(
        "failures",
        "Failures",
        table(["cause", "message", "trials", "which"], rows, numeric=(2,), caption=caption) if rows else None,
        tag("p", f"{more} more kinds of failure are in leaderboard.csv.", class_="note") if more else None,
        tag("p", f"Trials {restarts}, each from its last checkpoint.", class_="note") if restarts else None,
    )


def leaderboard_section(source: ReportSource) -> Html:
    """Every trial, best first; the script sorts it by any column."""
    if not source.records:
        return Html("")
    names, costs = list(source.domains), source.config.objectives
    header = [
        "",
        "trial",
        "how it ended",
        source.metric,
        "val_loss",
        "best epoch",
        "epochs",
        "time (s)",
        *costs,
        *names,
    ]
    usable = {record.number for record in source.ranked}
    ranked = rank(list(source.records), metric=source.metric)
    rows = (
        [
            place if record.number in usable else None,
            record.number,
            tag("span", STATUS_NAMES[record.status], class_=f"fate s-{_slug(record.status)}"),
            record.score,
            record.val_loss,
            record.best_epoch,
            record.epochs,
            _order(record.train_s, f"{record.train_s:.1f}"),
            *(_order(record.objectives[name], shown_cost(record.objectives[name])) for name in costs),
            *(_param_cell(record, name) for name in names),
        ]
        for place, record in enumerate(ranked, start=1)
    )
    return section(
        "leaderboard",
        "All trials",
        table(
            header,
            rows,
            numeric=(0, 1, *range(3, 8 + len(costs))),
            sortable=True,
            class_="board",
            bold_first=bool(usable),
            caption="Leaderboard: all trials, best first",
        ),
        note="Click a heading to sort. An empty cell is a parameter that the trial does not have.",
    )  # fmt: skip


def settings_section(source: ReportSource) -> Html:
    """What the run was made with, and its whole configuration."""
    environment = source.environment
    data, hardware = environment.get("data", {}), environment.get("hardware", {})
    shape = data.get("shape")
    facts: list[tuple[str, object]] = [
        ("run", source.paths.name),
        ("started", environment.get("started")),
        ("resumed", ", ".join(environment.get("resumed", []))),
        ("command", tag("code", environment["command"]) if "command" in environment else None),
        ("commit", environment.get("git_commit")),
        ("images", ", ".join(f"{count:,} {split}" for split, count in source.num_images.items())),
        ("image shape", " × ".join(map(str, shape)) if shape else None),
        ("classes", len(data["classes"]) if "classes" in data else None),
        ("data fingerprint", data.get("fingerprint")),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in environment.get("seeds", {}).items())),
        ("hardware", ", ".join(_hardware(hardware))),
        ("Python", environment.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())),
    ]
    rows = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value not in (None, ""))
    return section(
        "settings",
        "Settings and versions",
        tag("dl", *rows),
        tag(
            "details",
            tag("summary", "The whole configuration"),
            tag("pre", tag("code", to_yaml(source.config)), tabindex="0"),
        ),
    )


def _bar(name: str, share: float, *, widest: float, noise: float | None = None, faint: bool = False) -> Html:
    """A line of a bar chart; faint where it may be chance.

    Args:
        widest: the share that fills the whole width.
        noise: what chance can reach.
    """
    faint = faint or (noise is not None and share <= noise)
    mark = None
    if noise is not None:
        mark = tag("i", style=f"left:{min(100.0, 100 * noise / widest):.1f}%")
    text = f"{100 * share:.0f} %"
    return tag(
        "div",
        tag("span", name, class_="name"),
        tag("span", tag("b", style=f"width:{100 * share / widest:.1f}%"), mark, class_="track"),
        tag("span", text, class_="num"),
        class_="bar faint" if faint else "bar",
    )


def _param_cell(record: TrialRecord, name: str) -> object:
    if name not in record.params:
        return None
    value = record.params[name]
    return _order(value, param_value(value)) if isinstance(value, int | float) else param_value(value)


def _order(value: float, text: str) -> Html:
    """A number that is shown shorter than it is, and sorted in full."""
    return tag("data", text, value=repr(float(value)))


def _hardware(hardware: dict[str, object]) -> list[str]:
    gpus = hardware.get("gpus")
    parts = [
        f"{hardware['cpus']} CPU cores" if hardware.get("cpus") else "",
        f"{hardware['memory_gib']} GiB of memory" if hardware.get("memory_gib") else "",
        ", ".join(map(str, gpus)) if isinstance(gpus, list) else "",
        str(hardware.get("system") or ""),
    ]
    return [part for part in parts if part]


def _slug(status: Status) -> str:
    return status.value.replace(" ", "-")
