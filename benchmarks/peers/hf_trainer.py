"""Full fine-tuning with the Hugging Face Trainer, then accuracy on the test rows."""

from __future__ import annotations

import argparse
import tempfile
import time

from common import accuracy, answer, minilm, read
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True)
    options.add_argument("--test", required=True)
    options.add_argument("--epochs", type=float, default=3)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    texts, labels = read(given.train)
    test_texts, test_labels = read(given.test)
    names = sorted(set(labels))
    set_seed(given.seed)  # the Trainer seeds only what comes after it: the new head is made before
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(names))

    def tokenized(rows: dict[str, list[object]]) -> Dataset:
        dataset = Dataset.from_dict(rows)
        return dataset.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True, remove_columns=["text"])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch,
            per_device_eval_batch_size=given.batch,
            learning_rate=1e-4,
            warmup_steps=0.1,  # below 1: a share of all steps
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            seed=given.seed,
        )
        train = tokenized({"text": texts, "label": [names.index(label) for label in labels]})
        trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), train_dataset=train, processing_class=tokenizer)
        start = time.perf_counter()
        trainer.train()
        fit_seconds = time.perf_counter() - start
        logits = trainer.predict(tokenized({"text": test_texts})).predictions
    predicted = [names[i] for i in logits.argmax(axis=1)]
    answer(accuracy=accuracy(predicted, test_labels), fit_seconds=fit_seconds, steps=trainer.state.global_step)


main()
