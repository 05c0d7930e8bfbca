"""Rungs of a structured task on a workbench: what they fit is what they save and what they predict."""

from __future__ import annotations

import math
import time

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


def test_a_first_head_keeps_to_its_share_of_the_time(bench, tmp_path):
    train, many = np.arange(15), 5_000.0
    late = Job("fold0", {}, 0, Pace(3.0, after=2.0), tmp_path / "rungs" / "tail")
    head = structured.first_head(bench, train, many, late, share=0.5)
    assert time.perf_counter() - late.pace.made < 3.0
    recorded = late.replans["fold0.head"]
    assert 0 < recorded[-1][1] < many

    def again(job):
        bench.probes.clear()
        found = structured.first_head(bench, train, many, job, share=1.0)
        assert all(torch.equal(a, b) for a, b in zip(head.parameters(), found.parameters(), strict=True))

    again(Job("fold0", {}, 0, Pace(0.0, follow=True, parts={"head": recorded})))
    began = time.perf_counter()
    again(Job("fold0", {}, 0, Pace(math.inf), tmp_path / "rungs" / "full"))  # a run that goes on finds the head
    assert time.perf_counter() - began < 0.5


def test_a_refit_starts_from_the_head_of_the_first_split(bench):
    bench.hint_rows = np.arange(15)
    first = structured.first_head(bench, bench.hint_rows, 2.0, Job("fold0", {}, 0, Pace(math.inf)), share=1.0)
    refit = structured.first_head(bench, np.arange(20), 2.0, Job("final", {}, 7, Pace(math.inf)), share=1.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), refit.parameters(), strict=True))


def test_a_course_with_a_first_head_ends_in_time(bench, tmp_path):
    bench.head_epochs = 2_000.0
    part = registry.create("strategies", "full", options={"epochs": 2_000})
    train, held = np.arange(15), np.arange(15, 20)
    wanted = part.plan(bench, train=train, held=held, seconds=math.inf)
    began = time.perf_counter()
    job = Job("fold0", wanted.settings, 0, Pace(4.0), tmp_path / "rungs" / "full")
    found = part.fit(bench, train, held, job)
    assert time.perf_counter() - began < 8.0  # of 2,000 passes twice
    assert {"fold0", "fold0.head"} == set(job.replans)
    followed = Job("fold0", wanted.settings, 0, Pace(0.0, job.pace.replans, True, parts=job.pace.parts))
    bench.probes.clear()
    assert np.array_equal(part.fit(bench, train, held, followed).held_logits, found.held_logits)


def test_no_course_is_planned_that_a_fresh_head_learns_nothing_in(bench):
    part = registry.create("strategies", "full", options={"epochs": 50})
    train, held = np.arange(15), np.arange(15, 20)
    whole = part.plan(bench, train=train, held=held, seconds=math.inf)
    found = [part.plan(bench, train=train, held=held, seconds=whole.seconds * share) for share in np.linspace(0, 1, 40)]
    assert min(plan.settings["epochs"] for plan in found if plan is not None) >= structured.LEAST_EPOCHS
    assert found[0] is None


def test_answers_of_different_lengths_are_joined():
    parts = [transcripts.packed([(transcripts.points("abc"), 0.5)]), transcripts.packed([(transcripts.points("a"), 0.25)])]
    whole = answers.joined(parts, [np.array([1]), np.array([0])])
    assert whole.tolist() == [[0.25, 97, -1, -1], [0.5, 97, 98, 99]]
    assert answers.joined([np.zeros((1, 2, 6)), np.ones((1, 1, 6))]).shape == (2, 2, 6)
    assert len(answers.joined([])) == 0
