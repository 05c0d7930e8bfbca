"""warmstart's side of ``media_throughput.py``: seconds from files to probabilities, and of reading them alone."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from warmstart.core import registry
from warmstart.engine import answers, device, predictor


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    given = options.parse_args()
    listed = json.loads((given.folder / "files.json").read_text())
    body, files = given.folder / "body", [Path(file) for file in listed["files"]]
    modality = registry.create("modalities", "audio" if listed["sound_seconds"] else "image")
    task = registry.create("tasks", "classification")
    where = device.resolve("cpu")
    precision = device.dtype("auto", where)
    opened = predictor.load(body, modality=modality, device=where, precision=precision, max_length=256)

    def predict(some: list[Path]) -> float:
        """Seconds of reading them."""
        start = time.perf_counter()
        inputs = modality.load([(file,) for file in some], folder=Path(), body=body)
        read = time.perf_counter() - start
        answers.probabilities(task, opened.logits(inputs))
        return read

    predict(files[:8])  # warms up
    start, worked = time.perf_counter(), time.process_time()
    decoding = predict(files)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    figures = {name: listed[name] for name in ("operations", "sound_seconds", "count")}
    precision = next((p.dtype for p in opened.serving.body.parameters()), torch.float32)
    print(
        json.dumps(
            {"seconds": seconds, "processor": worked, "decoding": decoding, "precision": str(precision).removeprefix("torch."), **figures}
        )
    )


if __name__ == "__main__":
    main()
