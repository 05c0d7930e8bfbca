"""Files and a body for ``media_throughput.py``: a folder with ``files.json``, ``operations`` in it, and ``body``, which both sides open."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import soundfile
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import corpora
from warmstart.engine import preprocessing, store

LARGE = (4000, 3000)
RATE = 16000


def photographs(folder: Path, count: int, size: tuple[int, int] | None) -> list[Path]:
    """Photographs of ants and bees, enlarged where a size is given."""
    files = sorted((corpora.DATA / "ants_bees" / "val").rglob("*.jpg"))[:count]
    if size is None:
        return files
    made = []
    for file in files:
        made.append(folder / file.name)
        Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(made[-1], quality=90)
    return made


def recordings(folder: Path, count: int) -> list[Path]:
    """Spoken digits of a speaker joined to recordings of one to four takes, at 8 kHz."""
    files = sorted((corpora.DATA / "fsdd" / "recordings").glob("*.wav"))
    made, used = [], 0
    for i in range(count):
        takes = [soundfile.read(file, dtype="int16")[0] for file in files[used : used + 1 + i % 4]]
        used += len(takes)
        made.append(folder / f"{i:04}.wav")
        soundfile.write(made[-1], [sample for take in takes for sample in take], 8000)
    return made


def body(name: str, folder: Path, mobilenet: Path) -> Any:
    """The body's folder, and the classifier of transformers in it."""
    from transformers import AutoModelForAudioClassification as Listener
    from transformers import AutoModelForImageClassification as Viewer
    from transformers import ViTConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    if name == "sound":
        config = Wav2Vec2Config(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536, num_labels=10)
        model = Listener.from_config(config)
        store.save_transformers(model, folder)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    elif "ViT" in name:
        config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
        model = Viewer.from_config(config)
        store.save_transformers(model, folder)
        preprocessing.write_cropped(folder, size=224, pixels="signed")
    else:
        shutil.copytree(mobilenet, folder)
        model = Viewer.from_pretrained(folder)
    return model.eval()


@torch.no_grad()
def operations(model: Any, sound: list[Path]) -> int:
    """Floating-point operations of all of the sound, or of one image."""
    counter = FlopCounterMode(display=False)
    with counter:
        if not sound:
            model(pixel_values=torch.zeros(1, 3, 224, 224))
        for file in sound:
            model(input_values=torch.zeros(1, int(soundfile.info(file).duration * RATE)))
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--mobilenet", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    model = body(given.name, given.folder / "body", given.mobilenet)
    sound = recordings(given.folder, given.count) if given.name == "sound" else []
    files = sound or photographs(given.folder, given.count, LARGE if "large" in given.name else None)
    work = operations(model, sound) * (1 if sound else len(files))
    seconds = sum(soundfile.info(file).duration for file in sound)
    described = {"files": [str(file) for file in files], "operations": work, "sound_seconds": seconds, "count": len(files)}
    (given.folder / "files.json").write_text(json.dumps(described))
    print(json.dumps({"made": len(files)}))


if __name__ == "__main__":
    main()
