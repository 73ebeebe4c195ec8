"""What a run says: a table for people and a JSON file for machines."""

import json
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.processes import load_average


@dataclass(frozen=True, slots=True)
class Limits:
    """What a figure must reach now, and where it is to go; `at_least`: more is better."""

    target: float
    goal: float
    at_least: bool = False

    def told(self, limit: float) -> str:
        """One of them with its direction."""
        return f"{'>=' if self.at_least else '<='} {limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number beside its yardstick; without limits it is for information only."""

    target_id: str
    name: str
    value: float
    unit: str
    yardstick: str
    limits: Limits | None = None
    rounds: tuple[float, ...] = ()

    @property
    def is_reached(self) -> bool | None:
        """Does the value reach the target? None without one."""
        if self.limits is None:
            return None
        target = self.limits.target
        return self.value >= target if self.limits.at_least else self.value <= target


@dataclass(slots=True)
class Report:
    """All figures of one run, and the machine it ran on."""

    quick: bool
    rounds: int
    machine: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        rows = [asdict(figure) | {"reached": figure.is_reached} for figure in self.figures]
        return {
            "quick": self.quick,
            "rounds": self.rounds,
            "machine": self.machine,
            "figures": rows,
            "notes": self.notes,
        }

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")

    def as_text(self) -> str:
        """The table."""
        head = ("", "work", "value", "target", "goal", "reached", "yardstick of the same run")
        rows = [head, *(_row(figure) for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", *self.notes])


def _row(figure: Figure) -> tuple[str, ...]:
    limits = figure.limits
    reached = {None: "", True: "yes", False: "NO"}[figure.is_reached]
    return (
        figure.target_id,
        figure.name,
        f"{figure.value:.3g} {figure.unit}".strip(),
        limits.told(limits.target) if limits else "",
        limits.told(limits.goal) if limits else "",
        reached,
        figure.yardstick,
    )


def machine_facts() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load_average_at_start": [round(load, 2) for load in load_average()],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "sqlite": sqlite3.sqlite_version,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The facts in one line."""
    load = " ".join(f"{value:.2f}" for value in facts["load_average_at_start"])
    return (
        f"{facts['cores']} cores, load average {load}, Python {facts['python']}, "
        f"SQLite {facts['sqlite']}, Linux {facts['kernel']}"
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))
