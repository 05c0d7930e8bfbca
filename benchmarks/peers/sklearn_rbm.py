"""scikit-learn's BernoulliRBM on images in a .npy file: seconds of ``fit``, and the pseudo-likelihood of other images."""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import answer
from sklearn.neural_network import BernoulliRBM


def main() -> None:
    """Fit once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = ((np.load(path).reshape(-1, 784) / 255).astype(np.float32) for path in (given.train, given.test))
    machine = BernoulliRBM(given.hidden, learning_rate=0.05, batch_size=64, n_iter=given.passes, random_state=given.seed)
    began, worked = time.perf_counter(), time.process_time()
    machine.fit(train)
    fit, processor = time.perf_counter() - began, time.process_time() - worked
    answer(fit_seconds=fit, processor_seconds=processor, pseudo_likelihood=float(machine.score_samples(test).mean()))


if __name__ == "__main__":
    main()
