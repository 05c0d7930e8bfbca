"""The ``pipeline`` of transformers on files: seconds by batch size. Sound is read by soundfile and brought to 16 kHz by soxr beforehand."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
import soxr
import torch
from common import answer
from transformers import pipeline

RATE = 16000


def sound(files: list[str]) -> Iterator[Any]:
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32")
        yield {"raw": soxr.resample(samples, rate, RATE), "sampling_rate": RATE}


def images(files: list[str]) -> Iterator[Any]:
    yield from files


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options.add_argument("--batch", type=int, nargs="+", default=[1])
    given = options.parse_args()
    listed = json.loads((given.folder / "files.json").read_text())
    files, heard = listed["files"], bool(listed["sound_seconds"])
    task, extra = ("audio-classification", {}) if heard else ("image-classification", {"use_fast": False})
    ask = pipeline(task, model=str(given.folder / "body"), device="cpu", dtype=getattr(torch, given.dtype), **extra)
    inputs = sound if heard else images
    taken, processor = {}, {}
    for batch in given.batch:
        list(ask(inputs(files[:batch]), batch_size=batch))  # warms up
        start, worked = time.perf_counter(), time.process_time()
        found = list(ask(inputs(files), batch_size=batch))
        taken[str(batch)], processor[str(batch)] = time.perf_counter() - start, time.process_time() - worked
        assert len(found) == len(files)
    answer(seconds=taken, processor=processor, dtype=given.dtype)


main()
