"""pretrain, adapt, predict and evaluate on sound, as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

import tiny_sound
from warmstart import cli
from warmstart.core.card import Card
from warmstart.engine import model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    tiny_sound.folder(folder / "train", 60)
    tiny_sound.folder(folder / "test", 15, seed=1)
    return folder


@pytest.fixture(scope="module")
def body(data):
    sizes = ["objective.width=16", "objective.depth=2", "objective.steps=4", "objective.batch=3", "objective.codes=8"]
    flags = [flag for size in sizes for flag in ("--set", size)]
    assert _run("pretrain", data / "train", "--objective", "wav2vec", "--out", data / "body", "--quiet", *flags) == 0
    return data / "body"


def _run(*args):
    return cli.main([str(arg) for arg in args])


def _adapt(data, out, *flags):
    return _run("adapt", data / "train", "--test", data / "test", "--out", out, "--budget", "2m", "--quiet", *flags)


def test_pretraining_leaves_a_body_with_a_report(body):
    report = json.loads((body / "report.json").read_text())
    assert report["metrics"]["validation_loss"]["low"] <= report["metrics"]["validation_loss"]["value"]
    assert "<img" in (body / "report.html").read_text() or "data:image" in (body / "report.html").read_text()


def test_cepstra_without_a_body(data, tmp_path, capsys):
    assert _adapt(data, tmp_path / "m", "--backbone", "none") == 0
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    assert report["strategy"] == "classic"
    assert report["metrics"]["accuracy"]["value"] > 0.9
    assert Card.read(tmp_path / "m").modality == "audio"
    capsys.readouterr()
    files = sorted((data / "test").rglob("*.wav"))
    assert _run("predict", tmp_path / "m", files[0], files[-1], "--json") == 0
    found = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["down", "up"]
    soundfile.write(tmp_path / "quiet.wav", np.zeros(8_000), 8_000)
    soundfile.write(tmp_path / "click.wav", np.full(8, 0.1), 8_000)
    assert _run("predict", tmp_path / "m", tmp_path / "quiet.wav", tmp_path / "click.wav", files[0]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert notes == ["note: 1 of 3 recordings are silent", "note: 1 of 3 recordings are shorter than 0.025 s"]
    assert _run("evaluate", tmp_path / "m", data / "test", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["n"] == 15


@pytest.mark.parametrize(("strategy", "head"), [("linear_probe", ""), ("tail", "pooled"), ("full", "native")])
def test_a_body_of_our_own(data, body, tmp_path, strategy, head):
    flags = ["--set", f"strategy.head={head}", "--set", "strategy.epochs=0.5", "--set", "strategy.contrastive=0"] if head else []
    out = tmp_path / "m"
    assert _adapt(data, out, "--backbone", body, "--strategy", strategy, "--precision", "float32", *flags) == 0
    files = sorted((data / "test").rglob("*.wav"))[:4]
    loaded = model.load(out)
    found = loaded.predict([str(p) for p in files])
    samples = [soundfile.read(p, dtype="float32") for p in files]
    again = loaded.predict([{"array": wave, "sampling_rate": rate} for wave, rate in samples])
    assert [row["probabilities"] for row in found] == [row["probabilities"] for row in again]
    if head == "native":
        from transformers import pipeline

        classify = pipeline("audio-classification", model=str(out), top_k=None)
        for (wave, rate), row in zip(samples, found, strict=True):
            theirs = {said["label"]: said["score"] for said in classify({"raw": wave, "sampling_rate": rate})}
            assert theirs == pytest.approx(row["probabilities"], abs=1e-4)


def test_errors_are_one_line(data, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("file,label\nnowhere.wav,a\n" + f"{data / 'train' / 'up' / '002.wav'},b\n")
    assert _run("adapt", tmp_path / "t.csv", "--out", tmp_path / "m", "--budget", "30s") == 2
    said = capsys.readouterr().err.strip()
    assert "line 2: nowhere.wav: no such file" in said
    assert len(said.splitlines()) == 1
