"""Embedding throughput of ``SentenceTransformer.encode``: seconds by batch size, tokens by text, and a few embeddings to compare with."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import answer, minilm
from sentence_transformers import SentenceTransformer


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("texts", type=Path, help="a JSON list of strings")
    options.add_argument("--batch", type=int, nargs="+", default=[32])
    options.add_argument("--embeddings", type=Path, required=True, help="where to write the embeddings of the first texts (.npy)")
    given = options.parse_args()
    texts = json.loads(given.texts.read_text())
    model = SentenceTransformer(minilm(), device="cpu")
    np.save(given.embeddings, model.encode(texts[:128]), allow_pickle=False)  # warms up as well
    taken = {}
    for batch in given.batch:
        start = time.perf_counter()
        model.encode(texts, batch_size=batch)
        taken[str(batch)] = time.perf_counter() - start
    config = json.loads((Path(minilm()) / "config.json").read_text())
    answer(
        seconds=taken,
        tokens=_tokens(model, texts),
        layers=config["num_hidden_layers"],
        wide=config["hidden_size"],
        inner=config["intermediate_size"],
    )


def _tokens(model: SentenceTransformer, texts: list[str]) -> list[int]:
    """Tokens of each text as the model sees them."""
    return [len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]]


main()
