"""The published weights that lie beside the data, as folders that ``warmstart models import`` makes of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bench
import corpora

WEIGHTS = corpora.DATA / "weights"

IMPORTS = {
    "mobilenet_v2": ("mobilenet_v2_imagenet.fp16.safetensors", "mobilenet_v2", ["padding=same", "pixels=signed"]),
    "mobilenet_v1": ("mobilenet_v1_025_128_imagenet.fp16.safetensors", "mobilenet_v1", []),
    "resnet20": ("resnet20_cifar10.safetensors", "resnet20_cifar", []),
    "resnet56": ("resnet56_cifar10.safetensors", "resnet56_cifar", []),
    "yamnet": ("yamnet_audioset.fp16.safetensors", "yamnet", []),
}
"""Name to file, architecture and options of the importer."""

SPEECH_EMBEDDING = str(WEIGHTS / "google_speech_embedding.onnx")
SPEECH_FRONT = {
    "front": str(WEIGHTS / "google_speech_melspectrogram.onnx"),
    "gain": 32768,
    "front_scale": 0.1,
    "front_offset": 2,
    "step": 8,
}
"""Options of its source: what the speech embedding, an ONNX file, is told of the sound that goes into it."""


def imported(name: str, folder: Path) -> Path:
    """The folder of that body inside ``folder``, made on first use."""
    file, architecture, options = IMPORTS[name]
    out = folder / name
    if not out.exists():
        command = [str(bench.PROJECT_PYTHON.parent / "warmstart"), "models", "import", str(WEIGHTS / file), "--as", architecture]
        sets = [word for option in options for word in ("--set", f"importer.{option}")]
        subprocess.run([*command, *sets, "--out", str(out), "--json"], check=True, stdout=subprocess.DEVNULL)
    return out
