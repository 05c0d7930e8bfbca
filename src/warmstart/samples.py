"""Tiny inputs and bodies that the contract checks run on, made on the spot from seeds; public, for the tests of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.protocols import Input

if TYPE_CHECKING:
    import numpy as np

WORDS: dict[str, list[str]] = {
    "cards": ["card", "chip", "pin", "visa", "swipe", "plastic", "reader", "stolen"],
    "loans": ["loan", "interest", "mortgage", "rate", "debt", "borrow", "house", "years"],
    "travel": ["flight", "hotel", "abroad", "currency", "airport", "trip", "luggage", "visit"],
}
NOISE = ["the", "a", "my", "is", "please", "help", "with", "about", "today", "was", "not", "very", "this", "bank", "why", "how", "it"]
LABELS = tuple(WORDS)


def rows(n: int, *, seed: int = 0, labels: Sequence[str] = LABELS, wrong: float = 0.03) -> list[dict[str, str]]:
    """``n`` rows of a text and its label, the classes in turn; a share ``wrong`` of the labels is drawn at random."""
    import numpy as np

    random = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = labels[i % len(labels)]
        shown = str(random.choice(labels)) if random.random() < wrong else label
        found.append({"text": sentence([label], random), "label": shown})
    return found


def sentence(labels: Iterable[str], random: np.random.Generator) -> str:
    """Noise words, and one or two words of every label."""
    words = list(random.choice(NOISE, int(random.integers(2, 9))))
    for name in labels:
        words += list(random.choice(WORDS[name], int(random.integers(1, 3))))
    return " ".join(random.permutation(words))


def tiny_backbone(folder: Path, *, positions: int = 64) -> Path:
    """Write a BERT of three blocks with seeded random weights, and a WordPiece tokenizer that knows ``WORDS`` and ``NOISE``."""
    import torch
    import transformers

    from warmstart.engine import store

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NOISE, *(word for words in WORDS.values() for word in words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=positions,
            initializer_range=0.2,
        )
        store.quiet_transformers()
        store.save_transformers(transformers.BertModel(config).eval(), folder)
    return folder


def tiny_image_backbone(folder: Path, *, channels: int = 3, side: int = 16) -> Path:
    """Write a ConvNet of three stages with seeded random weights, for images of ``side`` x ``side`` pixels."""
    import torch

    from warmstart.engine import bodies

    image = {"size": [side, side], "channels": channels, "mean": [0.5] * channels, "std": [0.25] * channels}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {"model_type": "warmstart-convnet", "widths": [8, 12, 16], "channels": channels, "norm": "batch", "image": image}
        folder.mkdir(parents=True, exist_ok=True)
        bodies.save(bodies.build(config), folder)
    return folder


def drawings(n: int, *, side: int = 20, seed: int = 0) -> list[tuple[Any, str]]:
    """``n`` images (H, W, 3) of horizontal, vertical and diagonal stripes in noise, with the label of each, in turn."""
    import numpy as np

    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    found = []
    for i in range(n):
        label = ("across", "diagonal", "down")[i % 3]
        along = {"across": down, "diagonal": across + down, "down": across}[label] + random.integers(0, 6)
        stripes = 90.0 * (along // 3 % 2)[..., None] * random.uniform(0.5, 1, 3) + random.uniform(0, 110, (side, side, 3))
        found.append((stripes.astype(np.uint8), label))
    return found


def tiny_sound_backbone(folder: Path) -> Path:
    """Write a Wav2Vec2 of two blocks with seeded random weights, and its feature extractor for 8,000 samples a second."""
    import torch
    import transformers

    from warmstart.engine import store

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    ears = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (8, 8), "num_conv_pos_embeddings": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.Wav2Vec2Config(**sizes, **ears, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2)
        store.quiet_transformers()
        store.save_transformers(transformers.Wav2Vec2Model(config).eval(), folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000, return_attention_mask=True).save_pretrained(folder)
    return folder


def tones(n: int, *, seed: int = 0) -> list[Any]:
    """``n`` tones in noise of a quarter to half a second, 8,000 samples a second, float32."""
    import numpy as np

    random = np.random.default_rng(seed)
    times = [np.arange(int(random.integers(2_000, 4_000))) / 8_000 for _ in range(n)]
    noisy = [0.3 * np.sin(2 * np.pi * random.uniform(200, 900) * t) + 0.01 * random.standard_normal(len(t)) for t in times]
    return [wave.astype(np.float32) for wave in noisy]


SAMPLES: dict[str, Callable[[], list[Input]]] = {
    "text": lambda: [(row["text"],) for row in rows(12)],
    "image": lambda: [(pixels,) for pixels, _ in drawings(12)],
    "audio": lambda: [({"array": tone, "sampling_rate": 8_000},) for tone in tones(6)],
}
"""Inputs of the package's own modalities, as they stand in a table."""


def pictures_with_boxes() -> tuple[list[Input], list[Any]]:
    """Four drawings with boxes around what is in them; in one is nothing."""
    from PIL import Image

    from warmstart.engine.boxes import Boxes

    found = [("cross",), ("ring", "cross"), (), ("ring",)]
    corners = ((2.0, 2.0, 12.0, 12.0), (8.0, 6.0, 18.0, 19.0))
    values: list[Input] = [(Image.fromarray(pixels),) for pixels, _ in drawings(4)]
    return values, [Boxes(names, corners[: len(names)], (20, 20)) for names in found]


def pictures_with_masks() -> tuple[list[Input], list[Any]]:
    """Four drawings with masks of one to three classes, and some void."""
    import numpy as np
    from PIL import Image

    from warmstart.engine import masks

    values: list[Input] = [(Image.fromarray(pixels),) for pixels, _ in drawings(4)]
    cells = np.zeros((4, 20, 20), np.uint8)
    cells[1:, 5:12], cells[2, 12:, :9], cells[3, 0] = 1, 2, 255
    return values, [masks.read(each) for each in cells]


TARGETS: dict[str, Callable[[], tuple[list[Input], list[Any]]]] = {
    "object_detection": pictures_with_boxes,
    "semantic_segmentation": pictures_with_masks,
    "speech_recognition": lambda: ([(tone,) for tone in tones(5)], ["one two", "two", "three one", "one two", "four five six"]),
}
"""Inputs and raw targets of the package's own structured tasks."""

BODIES: dict[str, Callable[[Path], Path]] = {"text": tiny_backbone, "image": tiny_image_backbone, "audio": tiny_sound_backbone}
"""Bodies for them."""
