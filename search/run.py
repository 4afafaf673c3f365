"""What did the person ask for? `python -m search.run SPACE.yaml`; the only place that prints."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.storage import folder_of_runs
from trainables.errors import VistuneError

if TYPE_CHECKING:
    from rich.console import Console

    from search.halt import Halt
    from search.live import LiveView
    from search.results import RunPaths
    from search.session import Outcome
    from search.which_run import ChosenRun

SUCCESS, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """examples:
  python -m search.run spaces/small_dataset.yaml
  python -m search.run spaces/small_dataset.yaml -o budget.trials=20 -o space.lr=0.001 --name quick
  python -m search.run spaces/small_dataset.yaml --dry-run
  python -m search.run --resume quick
  python -m search.run --resume quick --extend +30

exit status: 0 success, 1 the search failed, 2 something given is unusable, 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parse(arguments)
    try:
        if options.schema:
            return _print_schema()
        if options.dry_run:
            return _dry_run(options)
        with _sigterm_is_ctrl_c():
            return _search(options)
    except VistuneError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("interrupted before the search began; nothing was changed", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write the rest at its end
        return FAILED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m search.run",
        description="Search for the best image classifier in a space of hyperparameters.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", nargs="?", type=Path, help="YAML file of the search space")
    parser.add_argument(
        "-o",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field of the YAML by its dotted key; may be repeated",
    )
    parser.add_argument("--name", help="name of the run (default: the space's name and the time)")
    parser.add_argument(
        "--storage-path",
        type=folder_of_runs,
        help="folder that holds runs, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER (default: $VISTUNE_RESULTS, else "
        "results; in a cluster job ~/vistune/results)",
    )
    parser.add_argument("--address", help="address of a Ray cluster (default: $RAY_ADDRESS, else this machine)")
    parser.add_argument("--resume", metavar="RUN", help="go on with an interrupted run: its name or folder")
    parser.add_argument(
        "--or-resume",
        action="store_true",
        help="with --name: go on with the run of that name where there is one, with its own configuration (space, -o "
        "count at the first start); for schedulers that start a job again",
    )
    parser.add_argument(
        "--extend",
        action="append",
        default=[],
        metavar="+N",
        help="with --resume: a new budget, counted from where the run has ended: +30 (trials), +2h, +500epochs, "
        "+8device-hours; may be repeated. What an interrupted run had left of it comes on top",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="with --resume: no more trials; the best of those there are is evaluated on the test split",
    )
    parser.add_argument("--tensorboard", action="store_true", help="serve the curves on this machine while searching")
    parser.add_argument(
        "--progress",
        choices=("auto", "events"),
        default="auto",
        help="events: progress as lines of JSON, for python -m cluster.submit to follow",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be searched, without training")
    parser.add_argument(
        "--quick", action="store_true", help="with --dry-run: read no images and build no architectures"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of space files, for editors")
    options = parser.parse_args(arguments)
    if options.schema:
        return options
    if options.resume and (options.space or options.overrides or options.name or options.or_resume):
        parser.error(
            "--resume goes on with the run's own configuration: give no space, -o, --name or --or-resume with it"
        )
    if options.or_resume and not options.name:
        parser.error("--or-resume goes on with the run of a name: give SPACE.yaml and --name with it")
    if options.extend and not options.resume:
        parser.error("--extend goes on with a run: give --resume RUN with it")
    if options.finish and (not options.resume or options.extend):
        parser.error("--finish ends a run that was interrupted: give --resume RUN with it, and no --extend")
    if options.quick and not options.dry_run:
        parser.error("--quick shortens a dry run: give --dry-run with it")
    if not options.resume and not options.space:
        parser.error("give a space file, for instance spaces/small_dataset.yaml, or --resume RUN")
    return options


def _print_schema() -> int:
    from search.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return SUCCESS


def _dry_run(options: argparse.Namespace) -> int:
    from search.console import open_console
    from search.describe import describe_warnings
    from search.dry_run import describe_search
    from search.which_run import choose_run

    chosen = choose_run(options)
    config, paths = chosen.config, chosen.paths
    with open_console() as console:
        describe_search(console, config, paths, quick=options.quick)
        describe_warnings(console, config)
    return SUCCESS


def _search(options: argparse.Namespace) -> int:
    from search.which_run import choose_run

    chosen = choose_run(options)
    config, paths = chosen.config, chosen.paths
    from search.console import open_console
    from search.describe import describe_outcome, describe_start, describe_warnings

    with open_console() as console:
        describe_start(console, config, paths, resumed=chosen.resumed)
        describe_warnings(console, config)
        try:
            outcome = _run(chosen, console=console, options=options)
        except VistuneError:
            raise
        except KeyboardInterrupt:
            if not paths.environment.is_file():
                raise
            print(f"ended at once; what had ended before is kept: {_resume_command(paths, options)}", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            return _report_crash(error, paths, options)
        describe_outcome(console, config, paths, outcome, address=options.address)
    return {"finished": SUCCESS, "failed": FAILED, "interrupted": INTERRUPTED}[outcome.state]


def _run(chosen: ChosenRun, *, console: Console, options: argparse.Namespace) -> Outcome:
    from search.console import libraries_to
    from search.describe import check_visibly, gather_visibly, time_fusion_visibly
    from search.ledger import Ledger
    from search.live import LiveView
    from search.resources_config import AUTO

    config, paths = chosen.config, chosen.paths
    preflight = check_visibly(console, config)
    if config.resources.fused == AUTO:  # a run that has begun knows
        config, _ = time_fusion_visibly(console, config)
    # A run that has begun knows what it started from, whether or not the earlier runs are still there.
    knowledge = None if paths.environment.is_file() else gather_visibly(console, config, preflight)
    # Ray is imported only now: what is wrong with the images has been said by then.
    from search.extend import record_extension, used_by
    from search.halt import Halt
    from search.mirrored_run import followed
    from search.session import held, prepare, run_session

    halt, ledger = Halt(), Ledger(metric=config.metric)
    if options.finish:
        halt.because("asked to finish with what there is")

    def stop() -> None:
        halt.because("another process has taken the run over", interrupted=True)

    with held(paths), followed(paths, on_lost=stop), _nothing_left_of_a_false_start(paths):
        prepare(config, paths, preflight, knowledge)
        if options.extend:
            record_extension(config, paths, options.extend)
        elapsed_s = used_by(config, paths).elapsed_s if chosen.resumed else 0.0
        view = LiveView(console, config, ledger, title=paths.name, elapsed_s=elapsed_s, form=options.progress)
        with libraries_to(paths.log), _ctrl_c_ends(halt, view), _served(paths, console, options), view:
            return run_session(
                config, paths, data=preflight.data, ledger=ledger, halt=halt, view=view, address=options.address
            )


def _resume_command(paths: RunPaths, options: argparse.Namespace) -> str:
    from search.redaction import redacted
    from trainables.mirrors import shown

    there = ["--address", redacted(options.address)] if options.address else []
    return shlex.join(["python", "-m", "search.run", "--resume", shown(paths.root), *there])


def _report_crash(error: Exception, paths: RunPaths, options: argparse.Namespace) -> int:
    """Says what broke without a wall of text; the traceback goes to the run's log."""
    from search.redaction import redacted
    from trainables.mirrors import mirror_of, shown
    from trainables.storage_errors import storage_error

    resume = _resume_command(paths, options)
    if (found := storage_error(error)) is not None:
        what = "its disk" if mirror_of(paths.root) is None else "the store, and the way to it"
        print(
            f"{shown(paths.root)}: cannot be written ({found.strerror}); see to {what}, then go on: {resume}",
            file=sys.stderr,
        )
        return FAILED
    paths.logs.mkdir(parents=True, exist_ok=True)
    with paths.log.open("a", encoding="utf-8") as log:
        log.write(redacted("".join(traceback.format_exception(error))))
    told = redacted(str(error)).strip().splitlines() or [""]
    print(
        f"the search broke: {type(error).__name__}: {told[-1]}\n"
        f"the traceback is in {paths.log}; finished trials are kept: {resume}",
        file=sys.stderr,
    )
    return FAILED


@contextmanager
def _served(paths: RunPaths, console: Console, options: argparse.Namespace) -> Iterator[None]:
    """TensorBoard for as long as the search takes, where that is asked for."""
    if not options.tensorboard:
        yield
        return
    from search.describe import describe_tensorboard
    from search.tensorboard import tensorboard

    with tensorboard(paths.trials) as port:
        describe_tensorboard(console, port)
        yield


@contextmanager
def _nothing_left_of_a_false_start(paths: RunPaths) -> Iterator[None]:
    """Removes the folder of a run that turned out to be impossible before its first trial."""
    from search.mirrored_run import remove_run

    try:
        yield
    except VistuneError:
        if not paths.study.exists():
            remove_run(paths)
        raise


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Whoever queues jobs asks with SIGTERM, and takes up again what ended as interrupted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ctrl_c_ends(halt: Halt, view: LiveView) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the search at the next opportunity; a second one at once."""

    def handle(signum: int, frame: object) -> None:
        del signum, frame
        if halt.interrupted:
            raise KeyboardInterrupt
        halt.because("interrupted", interrupted=True)
        view.note("ending: what is finished is saved, running trials keep their last epoch")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
