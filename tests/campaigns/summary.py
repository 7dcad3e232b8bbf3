"""What a run of campaigns came to: a table, failures by their cause, JSON, a table for docs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from campaigns.outcome import Finding, Outcome

__all__ = ["Summary", "docs_table"]

_HEAD = ("campaign", "cases", "clean", "refused", "failures", "cases/s", "largest memory")


class Summary:
    """Counts outcomes, and keeps of each class of failures the first case."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: Counter[str] = Counter()
        self.peaks: dict[str, int] = defaultdict(int)
        self.failures: list[Outcome] = []
        self.groups: dict[tuple[str, str, str], list[tuple[str, Finding]]] = defaultdict(list)

    @property
    def count(self) -> int:
        return sum(sum(row.values()) for row in self.verdicts.values())

    @property
    def failed(self) -> int:
        return sum(row["failed"] for row in self.verdicts.values())

    def seconds_each(self, name: str) -> float:
        """The mean time of a campaign's cases; 1 before the first one ended."""
        cases = sum(self.verdicts.get(name, {}).values())
        return self.seconds[name] / cases if cases else 1.0

    def add(self, outcome: Outcome) -> bool:
        """Count an outcome; True if it failed in a way that no case before it did."""
        name = outcome.campaign
        self.verdicts[name][outcome.verdict] += 1
        self.seconds[name] += outcome.seconds
        self.peaks[name] = max(self.peaks[name], outcome.peak)
        new = False
        for finding in outcome.findings:
            rows = self.groups[(name, finding.kind, finding.cause)]
            new |= not rows
            rows.append((outcome.case, finding))
        if outcome.findings:
            self.failures.append(outcome)
        return new

    def to_dict(self) -> dict[str, Any]:
        return {
            "campaigns": {
                name: {
                    "cases": sum(row.values()),
                    **{verdict: row[verdict] for verdict in ("clean", "refused", "failed")},
                    "seconds": round(self.seconds[name], 1),
                    "peak": self.peaks[name],
                }
                for name, row in self.verdicts.items()
            },
            "failures": [outcome.to_dict() for outcome in self.failures],
        }

    def table(self) -> str:
        """A table for a terminal."""
        rows = [_HEAD, *_rows(self.to_dict()["campaigns"])]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_HEAD))]
        return "\n".join(
            "  ".join(
                c.ljust(w) if n == 0 else c.rjust(w)
                for n, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )

    def classes(self) -> list[str]:
        """A line for each class of failures, most frequent first."""
        return [
            f"{len(rows):5d}  {name}: {kind}: {cause}  --only {rows[0][0]}"
            for (name, kind, cause), rows in sorted(self.groups.items(), key=lambda g: -len(g[1]))
        ]


def _rows(campaigns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(f"{row[key]:,}" for key in ("cases", "clean", "refused", "failed")),
            f"{row['cases'] / max(row['seconds'], 1e-9):.1f}",
            f"{row['peak'] / 2**20:.0f} MiB",
        )
        for name, row in campaigns.items()
    ]


def docs_table(data: Mapping[str, Any]) -> str:
    """The table of docs/reliability.md from what ``--json`` wrote."""
    lines = ["| " + " | ".join(_HEAD) + " |", "| --- |" + " ---: |" * (len(_HEAD) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(data["campaigns"])]
    total = sum(row["cases"] for row in data["campaigns"].values())
    failed = sum(row["failed"] for row in data["campaigns"].values())
    lines += [
        "",
        f"{total:,} cases with the seed {data['seed']} in {data['seconds'] / 60:.0f} minutes on "
        f"{data['machine']}; {failed:,} failed.",
    ]
    return "\n".join(lines)
