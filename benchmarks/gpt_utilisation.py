"""Model FLOP utilisation of gpt: operations of a training step that the model needs, by the fastest matrix product of this machine.

    python benchmarks/gpt_utilisation.py input.txt [--size small]

Operations: 6 for each weight of a product and token, and attention over half of the context (``causal.flops_per_token``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from warmstart.core import registry
from warmstart.engine import causal, device, dial
from warmstart.engine.learner import Setting


def main() -> None:
    """Time some steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--size", default="small", choices=("tiny", "small", "base"))
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    where = torch.device("cpu")
    precision = device.dtype("auto", where)
    with tempfile.TemporaryDirectory() as folder:
        part = registry.create("objectives", "gpt", options={"steps": 0})
        setting = Setting(data=given.text, folder=Path(folder), size=given.size, device=where, precision=precision)
        learner = part.prepare(setting)
        peak = max(dial.matmul_flops(where, precision, size=size) for size in (1024, 2048))
        seconds = dial.seconds_per_step(learner, setting, steps=given.steps)
    tokens = learner.settings["batch"] * learner.settings["context"]
    reached = causal.flops_per_token(learner.module.model, learner.settings["context"]) * tokens / seconds
    row = {"size": given.size, "parameters": learner.plan.parameters, "tokens_per_second": round(tokens / seconds)}
    print(json.dumps({**row, "reached_gflops": round(reached / 1e9), "peak_gflops": round(peak / 1e9), "share": round(reached / peak, 3)}))


if __name__ == "__main__":
    main()
