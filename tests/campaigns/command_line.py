"""The command line of the campaigns: which cases run, and what is printed about them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from campaigns.data import Data
from campaigns.disk import Disk
from campaigns.engine import Campaign, Case, in_child, run_cases, warm_up
from campaigns.folders import Folders
from campaigns.hub import Hub
from campaigns.kill import Kill
from campaigns.outcome import KINDS, Outcome
from campaigns.planted import Planted
from campaigns.server import Server
from campaigns.specs import Specs
from campaigns.summary import Summary, docs_table

__all__ = ["CAMPAIGNS", "main"]

CAMPAIGNS: dict[str, Campaign] = {
    campaign.name: campaign
    for campaign in (Kill(), Folders(), Specs(), Hub(), Server(), Data(), Disk())
}
HIDDEN: dict[str, Campaign] = {"planted": Planted()}
"""Run only when named: faults that test the harness itself."""


def main(args: Sequence[str]) -> int:
    """Run the campaigns; 1 if a case failed."""
    options = _parse(args)
    if options.table:
        print(docs_table(json.loads(Path(options.table).read_text(encoding="utf-8"))))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = {name: {**CAMPAIGNS, **HIDDEN}[name] for name in options.campaigns}
    place = Path(tempfile.mkdtemp(prefix="campaigns-", dir=_fast_place()))
    try:
        return _run(options, chosen, place)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(options: argparse.Namespace, chosen: dict[str, Campaign], place: Path) -> int:
    warm_up()
    for name, campaign in chosen.items():
        material = place / "material" / name
        material.mkdir(parents=True)
        in_child(lambda c=campaign, m=material: c.prepare(m), f"the preparation of {name}")
    started = time.monotonic()
    summary = Summary()
    cases = iter(options.only) if options.only else _cases(options, list(chosen), started, summary)
    outcomes = run_cases(
        chosen, cases, place=place / "cases", material=place / "material", jobs=options.jobs
    )
    stopped = False
    try:
        _show(options, outcomes, summary)
    except KeyboardInterrupt:  # what is known so far is worth telling
        stopped = True
        outcomes.close()
    seconds = time.monotonic() - started
    print(summary.table())
    for line in summary.classes():
        print(line)
    if options.json:
        data = summary.to_dict()
        data |= {"seconds": round(seconds), "seed": options.seed, "machine": _machine()}
        Path(options.json).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{summary.count} cases in {seconds:.0f} s, {summary.failed} failed")
    return 130 if stopped else int(summary.failed > 0)


def _show(options: argparse.Namespace, outcomes: Iterable[Outcome], summary: Summary) -> None:
    """Count outcomes and print what fails, each class once, or every case."""
    last = time.monotonic()
    for outcome in outcomes:
        new = summary.add(outcome)
        if options.verbose or (options.only and not outcome.findings):
            print(f"{outcome.case}: {outcome.verdict}: {outcome.title}", flush=True)
        if new or (options.only and outcome.findings):
            print(_failure(outcome), flush=True)
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"... {summary.count} cases, {summary.failed} failed", flush=True)


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns", description="Seeded cases of hostile files and faults."
    )
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=", ".join(CAMPAIGNS))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="stop after this time")
    length.add_argument("--cases", type=int, help="number of cases of each campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--first", type=int, default=0, help="index of the first case")
    parser.add_argument("--only", action="append", metavar="CAMPAIGN:SEED:INDEX")
    parser.add_argument("--json", metavar="FILE", help="write the figures and failures as JSON")
    parser.add_argument("--table", metavar="FILE", help="print the table of docs/reliability.md")
    parser.add_argument("--verbose", action="store_true", help="print a line for each case")
    options = parser.parse_args(args)
    try:
        options.only = [Case.parse(text) for text in options.only or ()]
    except ValueError:
        parser.error("--only takes CAMPAIGN:SEED:INDEX, such as folders:0:17")
    named = [case.campaign for case in options.only] or options.campaigns or list(CAMPAIGNS)
    options.campaigns = list(dict.fromkeys(named))
    if unknown := [n for n in options.campaigns if n not in {**CAMPAIGNS, **HIDDEN}]:
        parser.error(f"there is no campaign {unknown[0]!r}; there are {', '.join(CAMPAIGNS)}")
    if options.minutes is None and options.cases is None:
        options.cases = 100
    return options


def _cases(
    options: argparse.Namespace, names: Sequence[str], started: float, summary: Summary
) -> Iterator[Case]:
    """Cases of each campaign: equally many, or for ``--minutes`` as many as take equal times."""
    begun = dict.fromkeys(names, 0)
    while options.cases is None or min(begun.values()) < options.cases:
        if options.minutes and time.monotonic() - started > options.minutes * 60:
            return
        if options.cases is None:
            name = min(names, key=lambda n: begun[n] * summary.seconds_each(n))
        else:
            name = min(names, key=begun.__getitem__)
        yield Case(name, options.seed, options.first + begun[name])
        begun[name] += 1


def _failure(outcome: Outcome) -> str:
    lines = [f"FAILED {outcome.case}: {outcome.title}"]
    for finding in outcome.findings:
        lines.append(f"  {finding.kind} ({KINDS[finding.kind]}): {finding.cause}")
        if finding.command:
            lines.append(f"  command: {finding.command}")
        lines += [f"    | {line}" for line in finding.lines.splitlines()]
    lines.append(f"  repeat: python -m tests.campaigns --only {outcome.case}")
    return "\n".join(lines)


def _fast_place() -> str | None:
    """A file system in memory, if there is one with room."""
    place = Path("/dev/shm")
    if place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 4 << 30:
        return str(place)
    return None


def _machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
