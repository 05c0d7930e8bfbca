"""Masked language modelling from scratch with the Hugging Face Trainer, as its example script does it, for a given time."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import answer
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

WARM, TIMED = 2, 6


class Watch(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True)
    options.add_argument("--tokenizer", required=True)
    options.add_argument("--out", required=True)
    options.add_argument("--width", type=int, required=True)
    options.add_argument("--depth", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--lr", type=float, required=True)
    options.add_argument("--block", type=int, default=128)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--bf16", action="store_true")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    lines = [line for line in Path(given.train).read_text(encoding="utf-8").splitlines() if line.strip()]
    ids = [i for row in tokenizer(lines, truncation=False, verbose=False)["input_ids"] for i in row]
    blocks = [ids[i : i + given.block] for i in range(0, len(ids) - given.block + 1, given.block)]
    data = Dataset.from_dict({"input_ids": blocks})

    def train(steps: int) -> tuple[BertForMaskedLM, Watch]:
        set_seed(given.seed)
        sizes = {"hidden_size": given.width, "num_hidden_layers": given.depth, "intermediate_size": 4 * given.width}
        positions = {"num_attention_heads": given.width // 64, "max_position_embeddings": given.block}
        model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes, **positions))
        arguments = TrainingArguments(
            given.out,
            max_steps=steps,
            per_device_train_batch_size=given.batch,
            learning_rate=given.lr,
            warmup_steps=0.06,  # below 1: a share of all steps
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=given.bf16,
            disable_tqdm=True,
            seed=given.seed,
        )
        watch = Watch()
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        trainer = Trainer(model, arguments, collator, train_dataset=data, processing_class=tokenizer, callbacks=[watch])
        trainer.train()
        return model, watch

    _, measured = train(WARM + TIMED)
    a_step = (measured.ends[-1] - measured.ends[-1 - TIMED]) / TIMED
    steps = max(1, round(given.seconds / a_step))
    start = time.perf_counter()
    model, _ = train(steps)
    seconds = time.perf_counter() - start
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    tokens = steps * given.batch * given.block
    answer(steps=steps, tokens=tokens, training_seconds=seconds, tokens_per_second=tokens / seconds)


main()
