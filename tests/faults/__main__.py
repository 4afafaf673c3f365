"""What does a search survive? `python -m tests.faults [--faults NAME...] [--seeds N]`; needs root, takes minutes."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from search.git_commit import git_commit
from tests.faults.case import Case
from tests.faults.catalogue import FAULTS, REFERENCES
from tests.faults.checks import Trials, Verdict, judge
from tests.faults.cluster import Cluster, cluster
from tests.faults.hosts import may_have_hosts
from tests.faults.search import use
from tests.faults.table import Row, markdown, read_rows, replaced, write_rows

_CSV = Path("results/fault_injection.csv")
_MARKDOWN = Path("results/fault_injection.md")
_README = Path("README.md")
_END = "<!-- end of the table -->\n"
_MARK = "<!-- the table below is written by python -m tests.faults -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 where every case was survived, 1 where one was not, 2 where this machine does not allow it."""
    options = _parse(arguments)
    if not may_have_hosts():
        sys.stderr.write(
            "python -m tests.faults: needs the right to make network namespaces and mounts; run it as root\n"
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left of the cluster
    rows = []
    with cluster() as hosts:
        use(hosts)
        references: dict[str, Trials] = {}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for name in options.faults:
                row = run_case(hosts, name, seed, references)
                rows.append(row)
                if options.record:
                    write_rows(_CSV, replaced(read_rows(_CSV), row))
    print(f"\n{markdown(rows)}")
    if options.record:
        record(read_rows(_CSV))
    return 0 if all(row.survived for row in rows) else 1


def run_case(hosts: Cluster, name: str, seed: int, references: dict[str, Trials]) -> Row:
    """One fault in one search; a search that is not disturbed comes first, where there has been none of its space."""
    space = FAULTS[name].space
    if space not in references:
        undisturbed = Case(hosts, space=space, name=f"{REFERENCES[space]}-reference", seed=0)
        FAULTS[REFERENCES[space]].run(undisturbed)
        references[space] = undisturbed.search.finished()
    case = Case(hosts, space=space, name=f"{name}-{seed}", seed=seed, stored=FAULTS[name].stored)
    started = time.monotonic()
    try:
        FAULTS[name].run(case)
    except Exception as error:
        traceback.print_exc()
        case.notes.append(f"{type(error).__name__}: {str(error).strip()}")
    try:
        verdict = judge(case, references[space])
    except Exception as error:
        traceback.print_exc()
        verdict = Verdict([*case.notes, f"cannot be judged: {type(error).__name__}"], again=0, restarts=(0, 0))
    row = Row(
        fault=name,
        seed=seed,
        again=verdict.again,
        restarts=sum(verdict.restarts),
        recovery_s=None if case.recovered_s is None else round(case.recovered_s, 1),
        problems="; ".join(verdict.problems),
        commit=(git_commit() or "unknown")[:12],
    )
    _tell(row, moment=case.moment, seconds=time.monotonic() - started)
    hosts.restore()
    return row


def record(rows: Sequence[Row]) -> None:
    """Writes the table below the text of the published file, and into the README."""
    for path in (_MARKDOWN, _README):
        text = path.read_text(encoding="utf-8")
        before, mark, rest = text.partition(_MARK)
        assert mark, f"{path}: where the table belongs is not marked"
        after = rest[rest.index(_END) :] if _END in rest else ""
        path.write_text(f"{before}{mark}\n{markdown(rows)}\n\n{after}".rstrip() + "\n", encoding="utf-8")


def _tell(row: Row, *, moment: str, seconds: float) -> None:
    recovery = "" if row.recovery_s is None else f", recovered in {row.recovery_s:.0f} s"
    struck = f", struck {moment}" if moment else ""
    told = "survived" if row.survived else f"NOT SURVIVED: {row.problems}"
    print(
        f"{row.fault} seed {row.seed} ({seconds:.0f} s{struck}): {told}; "
        f"{row.again} epochs again, {row.restarts} restarts{recovery}",
        flush=True,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=2, help="cases of each fault (default 2)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help=f"put the cases into {_CSV} and {_MARKDOWN}")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
