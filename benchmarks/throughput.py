"""Embedding throughput: warmstart's forward pass against ``SentenceTransformer.encode``, as examples/s and as share of the machine's peak.

Tokenisation is included, loading the model is not; the activation store is empty or off. The operations counted are those of the blocks'
matrices and of attention over real tokens: padding is work that a method makes for itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import bench
import corpora

EXAMPLES = {"sst2": 4000, "ag_news": 2000, "scitldr": 600}


def main() -> int:
    options = bench.parser(__doc__, repeats=3)
    options.add_argument("--datasets", nargs="+", default=list(EXAMPLES), choices=list(EXAMPLES))
    options.add_argument("--batch", type=int, nargs="+", default=[32, 8, 128], help="batch sizes of encode; the first is its default")
    options.add_argument("--examples", type=int, help="texts of each set (by default: " + str(EXAMPLES) + ")")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.batch, given.examples = 1, [32], 48
    results = bench.Results("throughput", given)
    rows: list[list[str]] = []
    for name in given.datasets:
        texts = corpora.texts(name, given.examples or EXAMPLES[name])
        cells = [measure(results, f"{name} n={len(texts)} repeat={repeat}", texts, given) for repeat in range(given.repeats)]
        rows += lines(name, cells, given.batch, results)
    header = [
        "texts",
        "method",
        "examples/s",
        "tokens/s",
        "GFLOP/s",
        "of bfloat16 peak",
        "of float32 peak",
        "v. encode's default",
        "cosine",
    ]
    return results.finish(bench.table(header, rows))


def measure(results: bench.Results, key: str, texts: list[str], given: argparse.Namespace) -> tuple[bench.Cell, bench.Cell]:
    """Both methods, one after the other, on the same texts."""
    with tempfile.TemporaryDirectory() as folder:
        file, embeddings = Path(folder) / "texts.json", Path(folder) / "embeddings.npy"
        file.write_text(json.dumps(texts))

        def encode() -> bench.Cell:
            return bench.run(bench.peer("encode", file, "--embeddings", embeddings, "--batch", *given.batch), limit_seconds=given.limit)

        def warmstart() -> bench.Cell:
            if not embeddings.exists():  # the peer's cell is an older one: its embeddings are needed, not its times
                bench.run(bench.peer("encode", file, "--embeddings", embeddings, "--batch"), limit_seconds=given.limit)
            command = [bench.PROJECT_PYTHON, bench.HERE / "warmstart_embed.py", file, "--compare", embeddings]
            store = {"WARMSTART_CACHE": str(Path(folder) / "cache")}
            return bench.run([str(c) for c in command], limit_seconds=given.limit, environment=store)

        batches = ",".join(map(str, given.batch))
        return results.cell(f"encode batch={batches} {key}", encode), results.cell(f"warmstart {key}", warmstart)


def lines(name: str, cells: list[tuple[bench.Cell, bench.Cell]], batches: list[int], results: bench.Results) -> list[list[str]]:
    """A line for each batch size of encode, and one for warmstart."""
    peers, ours = [p for p, _ in cells], [w for _, w in cells]
    if not bench.good(peers):
        return []
    shape = bench.good(peers)[0]["answer"]
    tokens = shape["tokens"]
    name = f"{name}, {sum(tokens) / len(tokens):.0f} tokens"
    taken = {f"encode, batch {b}": bench.median(peers, lambda c, b=b: c["answer"]["seconds"][str(b)]) for b in batches}  # type: ignore[misc]
    taken["warmstart"] = bench.median(ours, lambda c: c["answer"]["seconds"])
    reference = taken[f"encode, batch {batches[0]}"]
    assert reference is not None
    operations = sum(flops(t, shape["layers"], shape["wide"], shape["inner"]) for t in tokens)
    found = []
    for method, seconds in taken.items():
        if seconds is None:
            found.append([name, method, *["-"] * 7])
            continue
        speed = operations / seconds / 1e9
        share = [f"{speed / results.peak(dtype):.0%}" for dtype in ("bfloat16", "float32")]
        cosine = bench.median(ours, lambda c: c["answer"]["cosine"]) if method == "warmstart" else None
        figures = [f"{len(tokens) / seconds:.0f}", f"{sum(tokens) / seconds:.0f}", f"{speed:.0f}", *share, f"{reference / seconds:.2f}x"]
        found.append([name, method, *figures, bench.show(cosine, ".5f")])
    return found


def flops(tokens: int, layers: int, wide: int, inner: int) -> int:
    """Floating-point operations of one text: 2 for each weight and token, and 4 for each pair of tokens and channel in attention."""
    return layers * (2 * tokens * (4 * wide * wide + 2 * wide * inner) + 4 * tokens * tokens * wide)


if __name__ == "__main__":
    sys.exit(main())
