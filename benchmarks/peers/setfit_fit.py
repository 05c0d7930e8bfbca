"""SetFit with its own defaults (one epoch over all pairs, batch 16), or with a fixed number of pairs per row."""

from __future__ import annotations

import argparse
import tempfile
import time

from common import accuracy, answer, minilm, read
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True)
    options.add_argument("--test", required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--iterations", type=int, help="pairs of each kind per row; not given: all pairs, SetFit's default")
    given = options.parse_args()
    texts, labels = read(given.train)
    test_texts, test_labels = read(given.test)
    names = sorted(set(labels))
    model = SetFitModel.from_pretrained(minilm(), labels=names, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_iterations=given.iterations, seed=given.seed, show_progress_bar=False, save_strategy="no", report_to="none"
        )
        data = Dataset.from_dict({"text": texts, "label": [names.index(label) for label in labels]})
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        start = time.perf_counter()
        trainer.train()
        fit_seconds = time.perf_counter() - start
    predicted = model.predict(test_texts, show_progress_bar=False)
    answer(accuracy=accuracy(predicted, test_labels), fit_seconds=fit_seconds, steps=trainer.st_trainer.state.global_step)


main()
