"""Are there known vulnerabilities in what constraints.txt pins? By pip-audit, and honest about what could not be asked.

    python .ci/audit.py [--require-answer] [--osv-url URL]

Exit status 1 where a vulnerability is known that no line of .ci/audit-ignored.txt sets aside; where nobody who would
know could be asked, 0 with a warning, or 3 with --require-answer. pip-audit itself passes when each package was "not
found": a mirror of PyPI has the packages, and not PyPI's list of vulnerabilities.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_IGNORED = Path(__file__).with_name("audit-ignored.txt")
_VULNERABLE, _NO_ANSWER = 1, 3
# PyPI's own list first; OSV's has the same advisories and more.
_SERVICES = ("pypi", "osv")
_TIMEOUT_S = 120


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python .ci/audit.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--require-answer", action="store_true", help="exit status 3 where nobody could be asked")
    parser.add_argument("--osv-url", metavar="URL", help="ask this mirror of OSV instead")
    parser.add_argument("--requirement", type=Path, default=_ROOT / "constraints.txt", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    lines = _IGNORED.read_text(encoding="utf-8").splitlines()
    ignored = [line.split("#")[0].split()[0] for line in lines if line.split("#")[0].strip()]
    for service in ["osv"] if options.osv_url else _SERVICES:
        report, problem = _ask(service, options.requirement, osv_url=options.osv_url)
        if report is None:
            print(f"{service}: no answer ({problem})")
            continue
        verdict = judge(report, ignored=ignored)
        if verdict is None:
            print(f"{service}: knows none of the {len(report)} packages, so it is no list of vulnerabilities")
            continue
        for line in verdict:
            print(line)
        return _VULNERABLE if any(line.startswith("VULNERABLE") for line in verdict) else 0
    print(
        "NOT AUDITED: no list of vulnerabilities could be reached; run `make audit` where pypi.org or api.osv.dev "
        "answer",
        file=sys.stderr,
    )
    return _NO_ANSWER if options.require_answer else 0


def judge(report: list[dict[str, Any]], *, ignored: list[str]) -> list[str] | None:
    """What to tell of pip-audit's answer, vulnerable packages first; None where it knows no package at all."""
    known = [package for package in report if "vulns" in package]
    if not known:
        return None
    lines: list[str] = []
    for package in known:
        for found in package["vulns"]:
            names = {found["id"], *found.get("aliases", [])}
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            kind = "ignored" if names & set(ignored) else "VULNERABLE"
            lines.append(f"{kind}: {package['name']} {package['version']}: {found['id']}; fixed in {fixed}")
    unknown = [package["name"] for package in report if "vulns" not in package]
    lines.sort(key=lambda line: not line.startswith("VULNERABLE"))
    lines.append(f"{len(known)} packages audited, {len(lines)} known vulnerabilities")
    if unknown:
        lines.append(f"not audited, since unknown to the list: {', '.join(unknown)}")
    return lines


def _ask(service: str, requirement: Path, *, osv_url: str | None) -> tuple[list[dict[str, Any]] | None, str]:
    """pip-audit's answer on every pinned package, and why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirement), "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
    command += ["--osv-url", osv_url] if osv_url else []
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"not within {_TIMEOUT_S} s"
    try:
        packages: list[dict[str, Any]] = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None, (asked.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    return packages, ""


if __name__ == "__main__":
    sys.exit(main())
