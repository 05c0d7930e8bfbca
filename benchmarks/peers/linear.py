"""Logistic regression on the frozen sentence embedding, or on TF-IDF, then accuracy on the test rows."""

from __future__ import annotations

import argparse
import time

from common import accuracy, answer, minilm, read
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("features", choices=["embedding", "tfidf"])
    options.add_argument("--train", required=True)
    options.add_argument("--test", required=True)
    options.add_argument("--strength", type=float, default=1.0, help="C of scikit-learn, whose default is 1")
    given = options.parse_args()
    texts, labels = read(given.train)
    test_texts, test_labels = read(given.test)
    start = time.perf_counter()
    if given.features == "tfidf":
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        train, test = vectorizer.fit_transform(texts), vectorizer.transform(test_texts)
    else:
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(minilm(), device="cpu")
        train, test = encoder.encode(texts, show_progress_bar=False), encoder.encode(test_texts, show_progress_bar=False)
    model = LogisticRegression(C=given.strength, max_iter=2000).fit(train, labels)
    predicted = model.predict(test)
    answer(accuracy=accuracy(predicted, test_labels), fit_seconds=time.perf_counter() - start)


main()
