"""adapt, predict and evaluate on recordings with transcripts, as a user types it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import tiny_sound
from warmstart import cli
from warmstart.core import registry
from warmstart.core.card import Card
from warmstart.engine import model, transcripts
from warmstart.samples import tiny_sound_backbone


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    tiny_sound.spoken(folder, "train", 48)
    tiny_sound.spoken(folder, "test", 12, seed=1)
    tiny_sound_backbone(folder / "body")
    return folder


def _run(*args):
    return cli.main([str(arg) for arg in args])


def _adapt(data, out, *flags):
    return _run("adapt", data / "train.csv", "--test", data / "test.csv", "--out", out, "--budget", "40s", "--quiet", *flags)


@pytest.fixture(scope="module")
def scratch(data):
    """A model without a body, by the inferred task."""
    assert _adapt(data, data / "scratch", "--strategy", "classic", "--set", "task.epochs=25") == 0
    return data / "scratch"


def test_from_scratch_without_a_body(data, scratch, capsys):
    report = json.loads((scratch / "report.json").read_text())
    assert report["task"] == "speech_recognition"
    assert report["metrics"]["wer"]["value"] < 0.3
    assert all(m["low"] <= m["value"] <= m["high"] for m in report["metrics"].values())
    assert report["metrics"]["real_time_factor"]["value"] < 1
    assert Card.read(scratch).labels == (" ", "b", "c", "d", "e", "g", "o", "w")
    capsys.readouterr()
    assert _run("evaluate", scratch, data / "test.csv", "--json") == 0
    again = json.loads(capsys.readouterr().out)["metrics"]
    assert again["wer"] == report["metrics"]["wer"]


def test_predictions_of_a_table_and_of_files_and_in_another_process(data, scratch, capsys):
    assert _run("predict", scratch, data / "test.csv", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 12
    assert set(rows[0]) == {"row", "input", "prediction", "probability"}
    assert all(isinstance(row["prediction"], str) and 0 <= row["probability"] <= 1 for row in rows)
    files = [str(data / "test" / f"{i:03}.wav") for i in range(12)]
    found = model.load(scratch).predict(files)
    assert [row["prediction"] for row in found] == [row["prediction"] for row in rows]
    program = f"import warmstart, json; print(json.dumps(warmstart.load({str(scratch)!r}).predict({files!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == found
    assert _run("predict", scratch, *files[:2]) == 0
    assert rows[0]["prediction"] in capsys.readouterr().out
    assert _run("predict", scratch, data / "test.csv", "--out", data / "said.csv") == 0
    assert (data / "said.csv").read_text().splitlines()[0] == "row,audio,prediction,probability"


@pytest.mark.parametrize("strategy", ["linear_probe", "tail", "lora", "full"])
def test_a_body_with_a_fresh_head(data, tmp_path, strategy, capsys):
    moving = [] if strategy == "linear_probe" else ["--set", "strategy.epochs=2"]
    out = tmp_path / "m"
    flags = ["--backbone", data / "body", "--strategy", strategy, "--precision", "float32", "--task", "speech-recognition"]
    assert _adapt(data, out, *flags, *moving, "--set", "task.beam=1") == 0
    report = json.loads((out / "report.json").read_text())
    assert report["strategy"].startswith(strategy)
    assert (out / "model.safetensors").exists()
    settings = json.loads((out / "head.json").read_text())["settings"]
    assert settings["kind"] == "convolutional"
    assert settings["language"] is None
    files = [str(data / "test" / f"{i:03}.wav") for i in range(4)]
    together = model.load(out).predict(files)
    assert [row["prediction"] for row in together] == [model.load(out).predict([f])[0]["prediction"] for f in files]
    assert report["metrics"]["cer"]["n"] == 12


def test_the_constant_answer(data, tmp_path):
    assert _adapt(data, tmp_path / "m", "--strategy", "majority") == 0
    found = model.load(tmp_path / "m").predict([str(data / "test" / "000.wav"), str(data / "test" / "001.wav")])
    assert found[0]["prediction"] == found[1]["prediction"] != ""


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("train/000.wav,", "missing transcript"),
        ("train/000.wav,?!", "a transcript without a letter or digit"),
        ("nowhere.wav,bee cow", "no such file"),
    ],
)
def test_errors_are_one_line_and_bad_rows_can_be_left_out(data, tmp_path, capsys, row, wanted):
    lines = (data / "train.csv").read_text().splitlines()
    (data / "bad.csv").write_text("\n".join([*lines[:9], row, *lines[9:13]]) + "\n")
    assert _run("adapt", data / "bad.csv", "--out", tmp_path / "m", "--task", "speech-recognition", "--strategy", "majority") == 2
    said = capsys.readouterr().err.strip()
    assert wanted in said
    assert "line 10" in said
    assert len(said.splitlines()) == 1
    flags = ["--task", "speech-recognition", "--strategy", "majority", "--skip-bad", "--json", "--quiet"]
    assert _run("adapt", data / "bad.csv", "--out", tmp_path / "m", *flags) == 0
    assert any(wanted in warning for warning in json.loads(capsys.readouterr().out)["warnings"])


def test_the_report_lets_errors_be_seen_and_heard(scratch):
    page = (scratch / "report.html").read_text()
    report = json.loads((scratch / "report.json").read_text())
    wrong = [case for case in report["errors"] if case["truth"] != case["predicted"]]
    assert all(case["sound"].startswith("data:audio/mpeg;base64,") and "aligned" in case["figure"] for case in wrong)
    assert page.count("<audio") == len(wrong) <= 12
    assert len(page) < 2_000_000
    assert "word error rate" in page


def test_a_long_recording_is_cut_where_it_is_quiet(data, scratch):
    files = [data / "test" / f"{i:03}.wav" for i in range(6)]
    whole = np.concatenate([soundfile.read(f, dtype="float32")[0] for f in files])
    loaded = model.load(scratch)
    wants = dataclasses.replace(loaded, task=registry.create("tasks", "speech_recognition", options={"window": 1.0}))
    said = wants.predict([{"array": whole, "sampling_rate": tiny_sound.RATE}])[0]["prediction"]
    alone = " ".join(row["prediction"] for row in loaded.predict([str(f) for f in files]))
    assert transcripts.edits(alone.split(), said.split()) <= len(alone.split()) // 3
    minute = np.tile(whole, 1 + int(60 * tiny_sound.RATE / len(whole)))
    assert loaded.modality.load([({"array": minute, "sampling_rate": tiny_sound.RATE},)], folder=data, body=None)[0][0].used > 59
    assert len(loaded.predict([{"array": minute, "sampling_rate": tiny_sound.RATE}])[0]["prediction"]) > 3 * len(alone)


@pytest.mark.parametrize(("seconds", "text", "wanted"), [(31.0, "bee", "says too much"), (0.2, "bee " * 20, "too short for a transcript")])
def test_recordings_that_do_not_fit_their_transcript(data, tmp_path, capsys, seconds, text, wanted):
    soundfile.write(data / "odd.wav", np.random.default_rng(0).normal(0, 0.1, int(seconds * tiny_sound.RATE)), tiny_sound.RATE)
    lines = (data / "train.csv").read_text().splitlines()
    (data / "odd.csv").write_text("\n".join([*lines[:9], f"odd.wav,{text}"]) + "\n")
    for task in ([], ["--task", "speech-recognition"]):
        assert _run("adapt", data / "odd.csv", "--out", tmp_path / "m", "--strategy", "majority", *task) == 2
        assert wanted in capsys.readouterr().err


def test_text_has_no_speech(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,transcript\n" + "".join(f"a sentence {i},said {i}\n" for i in range(9)))
    assert _run("adapt", tmp_path / "t.csv", "--out", tmp_path / "m", "--task", "speech-recognition", "--strategy", "majority") == 2
    said = capsys.readouterr().err.strip()
    assert "--task speech_recognition for text" in said
    assert len(said.splitlines()) == 1
