"""Reading and answering images and sound: warmstart's ``predict`` against the ``pipeline`` of transformers with the same folder.

Images a second (and seconds of sound a second) from files on disk to probabilities; loading the model does not count, decoding does. The
bodies: MobileNetV2 of ImageNet on photographs of 0.1 and of 12 megapixels, a ViT-S/16 and a wav2vec 2.0 of 6 blocks with random
weights, whose speed does not depend on them. The pipeline runs in float32 as it comes, and in bfloat16, with several sizes of batches.
Operations are counted by torch in the float32 body on the inputs as they are; the share of the machine's peak is that of matrix
multiplication in the precision of the method. All of it takes about 15 minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import bench
import weights

SETS = ("photographs", "large photographs", "photographs, ViT-S", "sound")
COUNT = {"photographs": 153, "large photographs": 24, "photographs, ViT-S": 96, "sound": 300}


def main() -> int:
    options = bench.parser(__doc__, repeats=3)
    options.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    options.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="batch sizes of the pipeline")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.batch = 1, [1]
    results = bench.Results("media_throughput", given)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.sets:
            count = 6 if given.quick else COUNT[name]
            cells = [measure(results, name, count, repeat, Path(folder), given) for repeat in range(given.repeats)]
            rows += lines(name, cells, results)
    header = [
        "what",
        "method",
        "examples/s",
        "processor ms each",
        "seconds of sound/s",
        "reading alone",
        "GFLOP/s",
        "of the peak",
        "v. best pipeline",
    ]
    return results.finish(bench.table(header, rows))


def measure(results: bench.Results, name: str, count: int, repeat: int, folder: Path, given: argparse.Namespace) -> list[bench.Cell]:
    """warmstart and both pipelines, one after the other, on the same files."""
    inputs = folder / name.replace(" ", "_")

    def work(script: str, *arguments: object) -> bench.Cell:
        if not (inputs / "files.json").exists():
            body = weights.imported("mobilenet_v2", folder)
            make = [bench.PROJECT_PYTHON, bench.HERE / "media_inputs.py", name, inputs, "--count", count, "--mobilenet", body]
            made = bench.run([str(part) for part in make], limit_seconds=given.limit)
            if "error" in made:
                return made
        command = [bench.PROJECT_PYTHON, bench.HERE / script, inputs, *arguments]
        return bench.run([str(part) for part in command], limit_seconds=given.limit)

    found = [results.cell(f"warmstart {name} n={count} repeat={repeat}", lambda: work("media_predict.py"))]
    for dtype in ("float32", "bfloat16"):
        batches = ",".join(map(str, given.batch))
        key = f"pipeline {dtype} batch={batches} {name} n={count} repeat={repeat}"
        arguments = ["--dtype", dtype, "--batch", *given.batch]
        found.append(results.cell(key, lambda arguments=arguments: work("peers/pipeline_speed.py", *arguments)))  # type: ignore[misc]
    return found


def lines(name: str, cells: list[list[bench.Cell]], results: bench.Results) -> list[list[str]]:
    """A line for warmstart and for each batch size of each pipeline."""
    answers = [bench.good(column) for column in zip(*cells, strict=True)]
    if not all(answers):
        return [[name, "-", *["-"] * 7]]
    shape = answers[0][0]["answer"]
    taken: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    ours = [bench.median(answers[0], lambda c, key=key: c["answer"][key]) for key in ("seconds", "processor")]  # type: ignore[misc]
    taken[f"warmstart, {shape['precision']}", shape["precision"]] = (ours[0], ours[1])
    for column in answers[1:]:
        first = column[0]["answer"]
        for batch in first["seconds"]:
            both = [bench.median(column, lambda c, k=k, b=batch: c["answer"][k][b]) for k in ("seconds", "processor")]  # type: ignore[misc]
            taken[f"pipeline, {first['dtype']}, batch {batch}", first["dtype"]] = (both[0], both[1])
    best = min(seconds for (method, _), (seconds, _) in taken.items() if seconds and method.startswith("pipeline"))
    found = []
    for (method, dtype), (seconds, processor) in taken.items():
        if seconds is None or processor is None:
            continue
        speed = shape["operations"] / seconds / 1e9
        sound = f"{shape['sound_seconds'] / seconds:.0f}" if shape["sound_seconds"] else "-"
        alone = f"{shape['count'] / shape['decoding']:.0f}" if method.startswith("warmstart") else "-"
        cost = f"{1000 * processor / shape['count']:.1f}"
        figures = [f"{shape['count'] / seconds:.1f}", cost, sound, alone, f"{speed:.0f}", f"{speed / results.peak(dtype):.0%}"]
        found.append([name, method, *figures, f"{best / seconds:.2f}x"])
    return found


if __name__ == "__main__":
    sys.exit(main())
