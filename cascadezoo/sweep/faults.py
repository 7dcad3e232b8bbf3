"""Collects the faults of a sweep and reports each once. Does not import torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from cascadezoo.errors import Problem, SpecError

__all__ = ["Faults"]

Labels = Mapping[str, str]


class Faults:
    """Collects the faults of a sweep.

    Args:
        source: how messages name the sweep.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._of_cells: dict[Problem, dict[str, Labels]] = {}

    def add(
        self, path: str, message: str, hint: str | None = None, *, code: str = "invalid"
    ) -> None:
        """Note a fault at a place in the sweep file."""
        self.problems.append(Problem(path, message, hint, code=code))

    def of_cell(self, name: str, labels: Labels, problem: Problem) -> None:
        """Note a fault of a cell. A fault that several cells share is reported once."""
        self._of_cells.setdefault(problem, {})[name] = labels

    def attribute(self, cells: Sequence[Labels]) -> None:
        """Attribute each fault of cells to the labels that only the faulty cells share.

        Args:
            cells: the labels of every cell, faulty or not.
        """
        for problem, faulty in self._of_cells.items():
            head = _shared(faulty, cells)
            path = ": ".join(part for part in (head, problem.path) if part)
            self.add(path, problem.message, problem.hint, code=problem.code)
        self._of_cells = {}

    def check(self) -> None:
        """Raise an error if any fault was noted.

        Raises:
            SpecError: lists all faults.
        """
        if self.problems:
            raise self.error()

    def error(self) -> SpecError:
        """The error that lists all faults."""
        return SpecError(dict.fromkeys(self.problems), source=self.source)


def _shared(faulty: Mapping[str, Labels], cells: Sequence[Labels]) -> str:
    """The fewest labels that exactly the faulty cells share; else the cells' names."""
    if len(faulty) == len(cells):
        return "every cell"
    names = list(faulty)
    first = faulty[names[0]]
    common = [(a, v) for a, v in first.items() if all(f[a] == v for f in faulty.values())]
    for size in range(1, len(common) + 1):
        for some in itertools.combinations(common, size):
            if sum(all(c[a] == v for a, v in some) for c in cells) == len(faulty):
                # These labels on all axes name a single cell.
                if size == len(first):
                    break
                return " ".join(f"{axis}={label}" for axis, label in some)
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"cell {shown}" if len(names) == 1 else f"cells {shown}{more}"
