"""Rungs of a structured task on a workbench: what they fit is what they save and what they predict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from warmstart.core import registry
from warmstart.engine import activations, answers, structured, transcripts, workbench
from warmstart.engine.clock import Pace
from warmstart.engine.job import Job
from warmstart.samples import tiny_sound_backbone, tones

TEXTS = ["aa b", "b", "ab a", "bb", "a"]


@pytest.fixture
def bench(tmp_path):
    task = registry.create("tasks", "speech_recognition", options={"beam": 1, "epochs": 3})
    modality = registry.create("modalities", "audio")
    texts = [TEXTS[i % 5] for i in range(20)]
    return workbench.Workbench(
        inputs=modality.load([({"array": t, "sampling_rate": 8_000},) for t in tones(20)], folder=tmp_path, body=None),
        targets=task.encode(texts, (" ", "a", "b")),
        labels=(" ", "a", "b"),
        task=task,
        modality=modality,
        backbone_name=str(tiny_sound_backbone(tmp_path / "body")),
        device=torch.device("cpu"),
        precision=torch.float32,
        max_length=64,
        seed=0,
        store=activations.Store(tmp_path / "store"),
    )


@pytest.mark.parametrize("name", ["majority", "classic", "linear_probe", "tail", "lora", "full"])
def test_a_rung_is_what_it_saves(bench, tmp_path, name):
    options = {"epochs": 2} if name in ("tail", "lora", "full") else {}
    part, module = registry.create("strategies", name, options=options), registry.module("strategies", name)
    train, held = np.arange(15), np.arange(15, 20)
    plan = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert plan is not None
    before = [p.detach().clone() for p in bench.backbone.model.parameters()]

    def fit(rows):
        return part.fit(bench, train, rows, Job("fold0", plan.settings, 0, Pace(math.inf), tmp_path / "job"))

    fitted, again = fit(held), fit(held)
    assert np.array_equal(fitted.held_logits, again.held_logits)
    assert len(fit(held[:0]).held_logits) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, bench.backbone.model.parameters(), strict=True))
    values = [bench.inputs[i] for i in held]
    predicted = fitted.predictor.logits(values)
    assert bench.task.decode(predicted, bench.labels) == bench.task.decode(fitted.held_logits, bench.labels)
    fitted.predictor.save(tmp_path / "saved", labels=bench.labels, temperature=1.0)
    how = {"modality": bench.modality, "device": bench.device, "precision": bench.precision, "max_length": bench.max_length}
    assert np.array_equal(module.load(tmp_path / "saved", **how).logits(values), predicted)


def test_a_tail_starts_from_the_head_that_the_probe_trained(bench):
    train = np.arange(15)
    plan = structured.plan(bench, train, np.arange(15, 20), math.inf)
    job = Job("fold0", plan.settings, 0, Pace(math.inf))
    structured.probe(bench, train, np.arange(0), job)
    head = structured.first_head(bench, train, plan.settings["epochs"], job, share=1.0)
    other = structured.fresh(bench, train, 0)
    assert structured.first_head_seconds(bench, train, plan.settings["epochs"]) == 0
    assert any(not torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))


def test_answers_of_different_lengths_are_joined():
    parts = [transcripts.packed([(transcripts.points("abc"), 0.5)]), transcripts.packed([(transcripts.points("a"), 0.25)])]
    whole = answers.joined(parts, [np.array([1]), np.array([0])])
    assert whole.tolist() == [[0.25, 97, -1, -1], [0.5, 97, 98, 99]]
    assert answers.joined([np.zeros((1, 2, 6)), np.ones((1, 1, 6))]).shape == (2, 2, 6)
    assert len(answers.joined([])) == 0
