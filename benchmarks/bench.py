"""What every benchmark shares: commands measured side by side, cells that are kept between runs, tables.

Standard library only. That is not for beauty: Linux counts the memory of the process that starts a child into the child's
own peak, so a parent that had imported a framework would be measured as part of everything it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PROJECT_PYTHON = Path(os.environ.get("WARMSTART_PYTHON", ROOT / ".venv" / "bin" / "python"))
PEER_PYTHON = Path(os.environ.get("WARMSTART_PEER_PYTHON", ROOT / ".venv-peers" / "bin" / "python"))
THREADS = int(os.environ.get("WARMSTART_BENCH_THREADS", "2"))

Cell = dict[str, Any]
"""One measured command: seconds, peak_bytes, anonymous_bytes, load, and either ``answer`` or ``error`` (with ``timed_out``)."""


def parser(doc: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    new = argparse.ArgumentParser(description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    new.add_argument("--quick", action="store_true", help="a smoke run on a few rows; its figures mean nothing and are kept apart")
    new.add_argument("--fresh", nargs="?", const="", metavar="PREFIX", help="measure again the cells whose name starts so (all)")
    new.add_argument("--repeats", type=int, default=repeats, help="how often each cell is measured")
    new.add_argument("--limit", type=float, default=3600.0, help="seconds after which a command is stopped and noted as such")
    return new


class Results:
    """Cells by name in ``results/NAME.json``; a cell that is there is not measured again.

    Timed-out cells are kept too, failed ones are tried again. ``failed`` counts the failures of this process.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        folder = Path(tempfile.gettempdir()) / "warmstart-benchmarks-quick" if options.quick else RESULTS
        self.path = folder / f"{name}.json"
        self.failed = 0
        stored = json.loads(self.path.read_text()) if self.path.exists() else {}
        fresh = "" if options.quick else options.fresh
        self.cells: dict[str, Cell] = {k: v for k, v in stored.get("cells", {}).items() if fresh is None or not k.startswith(fresh)}
        self.peaks: list[dict[str, float]] = stored.get("peaks", [])
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        for python in (PROJECT_PYTHON, PEER_PYTHON):
            if not python.exists():
                sys.exit(f"{python} is not there; see benchmarks/README.md for how to make it")
        self._measure_peak()

    def cell(self, key: str, work: Callable[[], Cell]) -> Cell:
        """The stored cell of that name, or what ``work`` measures now."""
        if key not in self.cells or ("error" in self.cells[key] and not self.cells[key]["timed_out"]):
            print(f"{key} ...", end=" ", file=sys.stderr, flush=True)
            self.cells[key] = work()
            self._write()
            found = self.cells[key]
            self.failed += "error" in found and not found["timed_out"]
            print(f"{found['seconds']:.1f} s {found.get('error', '').splitlines()[-1:] or ''}", file=sys.stderr, flush=True)
        return self.cells[key]

    def peak(self, dtype: str) -> float:
        """Best matrix multiplication ever measured for these results, in GFLOP/s, of ``float32`` or ``bfloat16``."""
        return max(value for peak in self.peaks for name, value in peak.items() if name.startswith(dtype))

    def finish(self, *tables: str) -> int:
        """Print machine and tables; the exit status of the script."""
        sizes = sorted({name for peak in self.peaks for name in peak})
        best = ", ".join(f"{name} {max(p[name] for p in self.peaks):.0f}" for name in sizes)
        print(f"\n{_processor()}, {THREADS} threads. Matrix multiplication, best seen, GFLOP/s: {best}.")
        busy = sum(cell["load"] > THREADS + 0.5 for cell in self.cells.values())
        if busy:  # the runs before a cell make a load of up to THREADS themselves
            print(f"{busy} of {len(self.cells)} cells began on a machine that others were using too.")
        for text in tables:
            print(f"\n{text}")
        print(f"\nCells: {self.path}")
        return 1 if self.failed else 0

    def _measure_peak(self) -> None:
        found = run(peer("matmul_peak"), limit_seconds=300)
        if "error" in found:
            sys.exit(f"the matrix multiplication could not be measured: {found['error']}")
        self.peaks.append(found["answer"])
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": _processor(), "peaks": self.peaks, "cells": self.cells}, indent=1, sort_keys=True) + "\n")
        partial.replace(self.path)


def peer(script: str, *arguments: object) -> list[str]:
    """The command that runs ``peers/SCRIPT.py`` in the peers' environment."""
    return [str(PEER_PYTHON), str(HERE / "peers" / f"{script}.py"), *map(str, arguments)]


def adapt(train: Path, *arguments: object, budget: str, seed: int, limit_seconds: float, cache: Path | None = None) -> Cell:
    """Measure ``warmstart adapt`` on a new output folder, with an empty activation store unless ``cache`` names one.

    The cell also holds the version of the code, and ``store_bytes`` that lie in the activation store afterwards.
    """
    with tempfile.TemporaryDirectory() as temporary:
        store = cache or Path(temporary) / "cache"
        command = [PROJECT_PYTHON.parent / "warmstart", "adapt", train, "--budget", budget, "--out", Path(temporary) / "model"]
        command += ["--json", "--quiet", "--seed", seed, *arguments]
        cell = run([str(c) for c in command], limit_seconds=limit_seconds, environment={"WARMSTART_CACHE": str(store)})
        cell["store_bytes"] = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    cell["version"] = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return cell


def run(command: Sequence[str], *, limit_seconds: float, environment: dict[str, str] | None = None) -> Cell:
    """Run a command to its end, or to the limit, and say what it cost and what it answered (its last JSON object on stdout)."""
    cell: Cell = {"load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=_environment(environment), start_new_session=True)
        try:
            cell["timed_out"] = _wait(process, start + limit_seconds, cell)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        cell["seconds"] = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        answer, complaint = _last_json(out.read()), err.read().strip().splitlines()[-8:]
    if cell["timed_out"]:
        cell["error"] = f"stopped after {limit_seconds:.0f} s"
    elif process.returncode or answer is None:
        cell["error"] = f"exit {process.returncode}: " + "\n".join([*complaint, *([json.dumps(answer)] if answer else [])])
    else:
        cell["answer"] = answer
    return cell


def _wait(process: subprocess.Popen[bytes], deadline: float, cell: Cell) -> bool:
    """Wait for the end and write peaks into the cell; True when the deadline came first.

    ``peak_bytes`` is the kernel's own high-water mark of the largest process of the tree. It counts the pages of memory-mapped
    files, which the kernel may drop at any time; ``anonymous_bytes``, sampled over the whole tree, leaves them out.
    """
    cell["anonymous_bytes"] = 0
    next_sample = 0.0
    while time.perf_counter() < deadline:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            cell["peak_bytes"] = usage.ru_maxrss * 1024
            return False
        if time.perf_counter() > next_sample:
            cell["anonymous_bytes"] = max(cell["anonymous_bytes"], sum(_anonymous(p) for p in _tree(process.pid)))
            next_sample = time.perf_counter() + 0.25
        time.sleep(0.02)
    return True


def _tree(pid: int) -> Iterable[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # the process ended meanwhile
            continue
        for child in found:
            yield from _tree(int(child))


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **threads, **offline, **(more or {})}


def _last_json(text: str) -> Any:
    lines = text.strip().splitlines()
    for i in reversed(range(len(lines))):
        if lines[i].startswith("{"):
            try:
                return json.loads("\n".join(lines[i:]))
            except ValueError:
                continue
    return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def good(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that ended with an answer."""
    return [c for c in cells if "answer" in c]


def accuracy(cell: Cell) -> float:
    """Test accuracy, from a peer's answer or from the contract of ``warmstart adapt --json``."""
    answer = cell["answer"]
    return float(answer["metrics"]["accuracy"]["value"] if "metrics" in answer else answer["accuracy"])


def median(cells: Iterable[Cell], value: Callable[[Cell], float]) -> float | None:
    """Median over the cells that ended with an answer; None when there is none."""
    values = [value(c) for c in good(cells)]
    return statistics.median(values) if values else None


def seconds(cell: Cell) -> float:
    """Wall time of the whole command."""
    return float(cell["seconds"])


def show(value: float | None, form: str = ".1f", scale: float = 1.0) -> str:
    """A number for a table, or a dash."""
    return "-" if value is None else format(value * scale, form)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column to the left, the others to the right."""
    lines = [header, [":---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
