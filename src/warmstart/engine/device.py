"""Where tensors live and how precise they are; memory and versions of this machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from warmstart.core.errors import BadOption


def resolve(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:i`` as a device.

    Raises:
        BadOption: No such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["auto", "cpu", *(["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else [])]
    if name not in known:
        raise BadOption(f"device {name!r} is not on this machine", f"one of {', '.join(known)}", "see: warmstart doctor")
    return torch.device(name)


def dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that bodies compute in: bfloat16 where the processor has instructions for it, else float32.

    float16 is not offered: on a CPU it is 20 to 100 times slower than float32.

    Raises:
        BadOption: Not one of auto, float32, bfloat16.
    """
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if precision not in ("float32", "bfloat16"):
        raise BadOption(f"precision {precision!r}", "one of auto, float32, bfloat16", "float16 is not offered: on a CPU it is far slower")
    return torch.float32 if precision == "float32" else torch.bfloat16


def served(precision: str, adapted: str, device: torch.device) -> torch.dtype:
    """The type that a saved body predicts in: with ``auto`` the one that it was adapted in, but float32 where bfloat16 would be emulated,
    which is ten times slower and as good.

    Raises:
        BadOption: Not one of auto, float32, bfloat16.
    """
    if precision != "auto":
        return dtype(precision, device)
    return torch.float32 if not has_bfloat16(device) else dtype(adapted, device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively (emulated bfloat16 is slower than float32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() in ("arm64", "aarch64"):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def one_thread(when: bool) -> Iterator[None]:
    """Within the block torch uses one thread, if ``when``: small operations take longer to share out than to do, and threads
    that wait for each other on a busy machine take a hundred times longer."""
    before = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def environment(device: torch.device, precision: torch.dtype) -> dict[str, str]:
    """What a reader needs to know of the machine and the versions to repeat a run."""
    import importlib.metadata

    versions = {}
    for name in ("warmstart", "torch", "transformers", "peft", "numpy", "scikit-learn"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    processor = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "device": f"{device} ({processor})",
        "threads": str(torch.get_num_threads()),
        "processors": str(os.cpu_count()),
        "precision": str(precision).removeprefix("torch."),
        **versions,
    }
