"""Masked-word loss and accuracy of saved models on the same blocks of a text, with the same words hidden."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import answer
from transformers import AutoTokenizer, BertForMaskedLM, DataCollatorForLanguageModeling, set_seed


@torch.inference_mode()
def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--test", required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--tokenizer", required=True)
    options.add_argument("--blocks", type=int, default=256)
    options.add_argument("--block", type=int, default=128)
    given = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    lines = [line for line in Path(given.test).read_text(encoding="utf-8").splitlines() if line.strip()]
    ids = [i for row in tokenizer(lines, truncation=False, verbose=False)["input_ids"] for i in row]
    step = len(ids) // given.blocks // given.block * given.block  # spread over the text
    blocks = [{"input_ids": ids[i * step : i * step + given.block]} for i in range(given.blocks)]
    set_seed(0)
    batch = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)(blocks)
    model = BertForMaskedLM.from_pretrained(given.model).eval()
    losses, right = [], []
    for i in range(0, given.blocks, 32):
        part = {name: value[i : i + 32] for name, value in batch.items()}
        labels = part.pop("labels")
        hidden = labels != -100
        logits = model(**part).logits[hidden][:, : len(tokenizer)]
        losses.append(torch.nn.functional.cross_entropy(logits, labels[hidden], reduction="none"))
        right.append(logits.argmax(-1) == labels[hidden])
    loss, hits = torch.cat(losses), torch.cat(right).float()
    error = float(loss.std() / len(loss) ** 0.5)
    answer(loss=float(loss.mean()), standard_error=error, accuracy=float(hits.mean()), words=len(loss))


main()
