"""WikiText-2: tokens a second and masked-word loss of ``pretrain --objective bert`` and of the Hugging Face Trainer in equal time.

Same vocabulary, same shape, same peak learning rate. The Trainer groups the text into blocks of 128 tokens, masks 15 % with
DataCollatorForLanguageModeling, and runs in float32 and in bfloat16 autocast. Both models are scored by transformers on the same
blocks of the test text with the same words hidden. Only training itself is timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bench
import corpora

SHAPES = {"tiny": (128, 2, 2e-3), "small": (512, 4, 1e-3)}


def main() -> int:
    options = bench.parser(__doc__, repeats=1)
    options.add_argument("--size", choices=SHAPES, default="small")
    options.add_argument("--train-seconds", type=float, default=90.0, help="time for training, the same for all")
    options.add_argument("--only", default="", help="measure only the methods whose name holds this; the others are shown as stored")
    given = options.parse_args()
    if given.quick:
        given.size, given.train_seconds = "tiny", 5.0
    results = bench.Results("bert_trainer", given)
    with tempfile.TemporaryDirectory() as folder:
        cells = measure(results, Path(folder), given)
    return results.finish(comparison(cells, max(results.peak("bfloat16"), results.peak("float32")), given.size))


def measure(results: bench.Results, folder: Path, given: argparse.Namespace) -> dict[str, list[bench.Cell]]:
    """Training and score of every method and seed."""
    train, test = (corpora.DATA / "wikitext2" / f"{split}.txt" for split in ("valid", "test"))
    tokenizer = folder / "tokenizer"
    made = bench.run(pretrain(train, tokenizer, "--set", "objective.steps=0"), limit_seconds=300)
    if "error" in made:
        sys.exit(made["error"])
    width, depth, lr = SHAPES[given.size]
    cells: dict[str, list[bench.Cell]] = {}
    for seed in range(given.repeats):
        shape = ["--width", width, "--depth", depth, "--seconds", given.train_seconds, "--lr", lr, "--seed", seed]
        peer = ["--train", train, "--tokenizer", tokenizer, *shape]
        # of a budget 3 % and three seconds are kept for saving; reading and measuring take about eight
        own = ["--size", given.size, "--budget", f"{(given.train_seconds + 3) / 0.97 + 8:.0f}s", "--seed", seed]
        for method, command in {
            "Trainer, float32": bench.peer("hf_mlm", *peer, "--out", folder / f"float32-{seed}"),
            "Trainer, bfloat16": bench.peer("hf_mlm", *peer, "--bf16", "--out", folder / f"bfloat16-{seed}"),
            "warmstart, words alone": own_run(train, folder / f"words-{seed}", tokenizer, "none", own),
            "warmstart, words and next sentence": own_run(train, folder / f"both-{seed}", tokenizer, "nsp", own),
        }.items():
            out = Path(command[command.index("--out") + 1])

            def both(command: list[str] = command, out: Path = out) -> bench.Cell:
                cell = bench.run(command, limit_seconds=given.limit)
                score = ["--test", test, "--model", out, "--tokenizer", tokenizer, "--blocks", 32 if given.quick else 256]
                scored = {} if "error" in cell else bench.run(bench.peer("mlm_loss", *score), limit_seconds=given.limit)
                return {**cell, "scored": scored.get("answer")}

            key = f"{given.size} {method} seed={seed}"
            if given.only in method or key in results.cells:
                cells.setdefault(method, []).append(results.cell(key, both))
    return cells


def pretrain(data: Path, out: Path, *arguments: object) -> list[str]:
    command = [bench.PROJECT_PYTHON, "-m", "warmstart", "pretrain", data, "--objective", "bert", "--out", out, "--json", "--quiet"]
    return [str(c) for c in (*command, *arguments)]


def own_run(data: Path, out: Path, tokenizer: Path, second: str, arguments: Sequence[object]) -> list[str]:
    return pretrain(data, out, "--set", f"objective.second={second}", "--set", f"objective.tokenizer={tokenizer}", *arguments)


def comparison(cells: dict[str, list[bench.Cell]], peak: float, size: str) -> str:
    """One line a method; medians over the seeds."""
    width, depth, _ = SHAPES[size]
    header = ["method", "tokens/s", "times float32", "training s", "tokens", "test loss", "test accuracy %", "share of the peak"]
    rows = []
    reference = None
    for method, repeats in cells.items():
        rate = bench.median(repeats, speed)
        reference = reference or rate
        loss, right = (bench.median([c for c in repeats if c.get("scored")], lambda c, k=k: c["scored"][k]) for k in ("loss", "accuracy"))
        tokens = bench.median(repeats, tokens_of)
        share = None if rate is None else rate * operations(width, depth) / (peak * 1e9)
        rows.append(
            [
                method,
                bench.show(rate, ",.0f"),
                "-" if rate is None or not reference else f"{rate / reference:.1f}x",
                bench.show(bench.median(repeats, lambda c: tokens_of(c) / speed(c))),
                bench.show(tokens, ",.0f"),
                bench.show(loss, ".3f"),
                bench.show(right, ".1f", 100),
                bench.show(share, ".0f", 100) + " %",
            ]
        )
    return bench.table(header, rows)


def tokens_of(cell: bench.Cell) -> float:
    return float(cell["answer"].get("tokens", cell["answer"].get("count")))


def speed(cell: bench.Cell) -> float:
    return float(cell["answer"].get("tokens_per_second", cell["answer"].get("per_second")))


def operations(width: int, depth: int, *, context: int = 100, vocabulary: int = 8_448) -> float:
    """Floating-point operations that a token needs, forward and backward: matrices, attention, and the word head at 15 % of the tokens."""
    return 6 * (12 * depth * width**2 + 0.15 * (vocabulary * width + width**2)) + 12 * depth * context * width


if __name__ == "__main__":
    sys.exit(main())
