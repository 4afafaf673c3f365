"""Runs a search on a cluster as if it were here: `python -m cluster.submit SPACE.yaml --address http://HEAD:8265`."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import ConfigError, VistuneError
from trainables.mirrors import local_path

if TYPE_CHECKING:
    from rich.console import Console

    from cluster.jobs import Cluster, Job

SUCCESS, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
_OWN_STATUSES = (SUCCESS, FAILED, UNUSABLE, INTERRUPTED)

_EXAMPLES = """examples:
  python -m cluster.submit spaces/small_dataset.yaml --address http://HEAD:8265 --name first
  python -m cluster.submit --attach first        # after Ctrl-C, or from another machine
  python -m cluster.submit --stop first          # ends it as Ctrl-C ends a local one
  python -m cluster.submit --resume first        # goes on with it, on the cluster
  python -m cluster.submit --fetch first         # brings results/first here, at any time

The address may be in $RAY_API_SERVER_ADDRESS, the token in a file named by $RAY_AUTH_TOKEN_PATH.

exit status: that of the search; 2 something given is unusable, 130 stopped or detached"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parse(arguments)
    from search.console import open_console

    with open_console() as console:
        try:
            return _act(options, console)
        except VistuneError as error:
            print(error, file=sys.stderr)
            return UNUSABLE
        except OSError as error:
            print(f"{error.filename or 'this machine'}: {error.strerror or error}", file=sys.stderr)
            return UNUSABLE
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.submit",
        description="Run a search on a Ray cluster: send the code, follow the search, bring its results here.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", nargs="?", type=Path, help="YAML file of the search space, in this folder")
    parser.add_argument("--address", help="job server of the cluster: http://HEAD:8265")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--resume", metavar="RUN", help="go on with a run on the cluster")
    what.add_argument("--attach", metavar="RUN", help="follow a search that runs there: name of the run, or job")
    what.add_argument("--stop", metavar="RUN", help="end a search that runs there, so that it can be resumed")
    what.add_argument("--fetch", metavar="RUN", help="only bring a run's results here")
    search = parser.add_argument_group("of the search, as for search.run")
    search.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a field of the YAML by its dotted key; may be repeated",
    )  # fmt: skip
    search.add_argument("--name", help="name of the run (default: the space's name and the time)")
    search.add_argument("--finish", action="store_true", help="with --resume: no more trials, the test split instead")
    search.add_argument("--extend", action="append", default=[], metavar="+N", help="with --resume: a new budget")
    search.add_argument("--tensorboard", action="store_true", help="serve the curves on the head node's loopback")
    search.add_argument(
        "--storage-path",
        metavar="DIR",
        help="folder of runs on the cluster, absolute, shared by its nodes, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER "
        "(default: $VISTUNE_RESULTS there, else ~/vistune/results)",
    )
    here = parser.add_argument_group("here")
    here.add_argument("--results", type=Path, default=Path("results"), help="folder for what is fetched")
    here.add_argument("--detach", action="store_true", help="do not follow the search")
    here.add_argument("--no-fetch", action="store_true", help="do not bring the results here at the end")
    here.add_argument("--fetch-mib", type=_mib, default=256.0, help="most that the results may have (default 256)")
    here.add_argument("--package-mib", type=_mib, default=20.0, help="most that is sent (default 20)")
    options = parser.parse_args(arguments)
    other = options.resume or options.attach or options.stop or options.fetch
    if bool(options.space) == bool(other):
        parser.error("give a space file, or one of --resume, --attach, --stop, --fetch with the name of a run")
    if other and (options.overrides or options.name):
        parser.error("-o and --name are for a new search: give a space file with them")
    if options.extend and not options.resume:
        parser.error("--extend goes on with a run: give --resume RUN with it")
    if options.finish and (not options.resume or options.extend):
        parser.error("--finish ends a run that was interrupted: give --resume RUN with it, and no --extend")
    options.address = options.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not options.address:
        parser.error("give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
    return options


def _mib(text: str) -> float:
    """A size, for argparse."""
    value = float(text)  # argparse says what is no number
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, found {text}")
    return value


def _act(options: argparse.Namespace, console: Console) -> int:
    if options.storage_path is not None and "://" in options.storage_path:
        local_path(options.storage_path)  # is it one?
    elif options.storage_path is not None and not options.storage_path.startswith("/"):
        raise ConfigError(f"--storage-path: {options.storage_path} is a folder on the cluster; give an absolute path")
    if options.attach or options.stop:
        return _attach(options, console)
    if options.fetch:
        return _fetch_only(options, console)
    return _submit(options, console)


def _submit(options: argparse.Namespace, console: Console) -> int:
    """Checks all that can be checked here, then sends the search off."""
    from cluster.jobs import Cluster
    from cluster.package import collect
    from cluster.submission import check_free, check_paths, checked_name, new_name, read_space, search_command

    root = Path.cwd()
    if options.space:
        config, space = read_space(options, root)
        run = new_name(options, config)
        package = collect(root, max_mib=options.package_mib)
        check_paths(config, space, package)
    else:
        space, run = None, checked_name(options.resume, option="--resume")
        package = collect(root, max_mib=options.package_mib)
    if not options.no_fetch:
        check_free(options.results / run, known=space is None)
    cluster = Cluster(options.address)
    storage = options.storage_path or (None if options.space else _storage_of(cluster, run))
    command = search_command(options, space=space, run=run, storage=storage)
    name = cluster.submit(command, package=package, run=run, kind="search", storage=storage)
    sent = f"{len(package.files) + len(package.code)} files, {package.mib:.1f} MiB"
    console.print(f"submitted [bold]{name}[/bold] to {cluster.shown} ({sent})", highlight=False, soft_wrap=True)
    if options.detach:
        _describe_ways(console, cluster, run)
        return SUCCESS
    return _follow(options, console, cluster, cluster.job(name))


def _attach(options: argparse.Namespace, console: Console) -> int:
    from cluster.jobs import Cluster
    from cluster.submission import check_free

    cluster = Cluster(options.address)
    job = cluster.job(options.attach or options.stop)
    if job.run is not None and not options.no_fetch:
        check_free(options.results / job.run, known=True)
    if options.stop:
        if job.ended:
            console.print(f"{job.id} has ended already ({job.status.lower()})", highlight=False)
            return SUCCESS
        cluster.stop(job.id)
        console.print(f"{job.id} is told to end; what is finished is kept", highlight=False)
    return _follow(options, console, cluster, job)


def _follow(options: argparse.Namespace, console: Console, cluster: Cluster, job: Job) -> int:
    """Shows the search until it ends or the person has seen enough, then brings the results here."""
    from cluster.job_view import JobView

    try:
        with JobView(console) as view:
            for text in cluster.follow(job.id, lost=view.show_lost):
                view.show(text)
        job = cluster.job(job.id)
    except KeyboardInterrupt:
        console.print(f"\ndetached: the search {'is ending' if options.stop else 'goes on'}")
        _describe_ways(console, cluster, job.run)
        return INTERRUPTED
    except VistuneError:
        _describe_ways(console, cluster, job.run)
        raise
    status = job.exit_code
    if job.status == "FAILED" and status not in _OWN_STATUSES:
        told = job.message.strip() if status is None else f"its process was killed (status {status})"
        print(f"{job.id}: {told}; what had ended is kept: {_resume_command(cluster, job)}", file=sys.stderr)
        status = FAILED
    if status is None:
        status = {"SUCCEEDED": SUCCESS, "STOPPED": INTERRUPTED}.get(job.status, FAILED)
    if job.run is not None and status != UNUSABLE and not options.no_fetch:
        try:
            _fetch(options, console, cluster, job.run, storage=job.storage)
        except (VistuneError, OSError) as error:
            again = f"python -m cluster.submit --fetch {job.run} --address {cluster.shown}"
            print(f"the results could not be fetched: {error}\nonce that is seen to: {again}", file=sys.stderr)
            return status or FAILED
    if status == INTERRUPTED:
        console.print(f"[dim]go on    [/dim]  {_resume_command(cluster, job)}", soft_wrap=True)
    return status


def _resume_command(cluster: Cluster, job: Job) -> str:
    return f"python -m cluster.submit --resume {job.run} --address {cluster.shown}"


def _fetch_only(options: argparse.Namespace, console: Console) -> int:
    from cluster.jobs import Cluster
    from cluster.submission import check_free, checked_name

    run = checked_name(options.fetch, option="--fetch")
    check_free(options.results / run, known=True)
    cluster = Cluster(options.address)
    _fetch(options, console, cluster, run, storage=options.storage_path or _storage_of(cluster, run))
    return SUCCESS


def _fetch(options: argparse.Namespace, console: Console, cluster: Cluster, run: str, *, storage: str | None) -> None:
    """Has the cluster print the run, and puts it in place once all of it is here and its checksum agrees."""
    from cluster.archive import received, unpack
    from cluster.package import collect
    from cluster.submission import checked_name, pack_command

    checked_name(run, option="run")
    package = collect(Path.cwd(), max_mib=options.package_mib)
    command = pack_command(run, storage=storage, max_mib=options.fetch_mib)
    with console.status(f"fetching {run}"), tempfile.TemporaryFile() as archive:
        name = cluster.submit(command, package=package, run=run, kind="fetch", storage=storage)
        num_files = received(cluster.follow(name), archive, max_mib=options.fetch_mib)
        archive.seek(0)
        mark = {"address": cluster.shown, "run": run, "storage": storage}
        size = unpack(archive, options.results / run, num_files=num_files, max_mib=options.fetch_mib, mark=mark)
    console.print(
        f"[dim]fetched  [/dim]  {options.results / run} ({num_files} files, {size / 2**20:.1f} MiB)",
        highlight=False,
        soft_wrap=True,
    )


def _storage_of(cluster: Cluster, run: str) -> str | None:
    """Where on the cluster the run lies, if a search of it was sent from somewhere with a folder of its own."""
    from cluster.jobs import ClusterError

    try:
        return cluster.job(run).storage
    except ClusterError:
        return None


def _describe_ways(console: Console, cluster: Cluster, run: str | None) -> None:
    for label, option in (("follow", "--attach"), ("stop", "--stop"), ("results", "--fetch")):
        text = f"python -m cluster.submit {option} {run} --address {cluster.shown}"
        console.print(f"[dim]{label:<9}[/dim]  {text}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    # A shell that is not interactive starts its background jobs with Ctrl-C ignored; it is how one detaches.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
