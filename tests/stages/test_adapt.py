"""adapt, end to end: what it writes can be loaded, opened elsewhere, trusted and made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmstart as package
from processes import in_a_fresh_process
from tiny_text import LABELS, rows, sentence, write_csv
from warmstart.core import registry
from warmstart.core.card import Card
from warmstart.core.errors import BudgetTooSmall, DamagedModel

STRATEGIES = list(registry.parts("strategies"))
MOVING = [name for name in STRATEGIES if any(option.name == "head" for option in registry.parts("strategies")[name].options)]
SENTENCES = [row["text"] for row in rows(40, seed=7)]

Adapted = Callable[..., Path]
Run = Callable[..., tuple[int, Any, str]]


def of(strategy: str) -> list[str]:
    """Flags that run one strategy alone, shortly."""
    return ["--strategy", strategy, *(["--set", "strategy.epochs=1"] if strategy in MOVING else [])]


def native(strategy: str) -> list[str]:
    return [*of(strategy), "--set", "strategy.head=native", "--set", "strategy.epochs=2", "--precision", "float32"]


@pytest.fixture(scope="module")
def fresh(adapted: Adapted) -> dict[str, Any]:
    """Probabilities by strategy as another process reads them from the folders, with every bit."""
    program = """
import json, sys, warmstart
sentences = json.loads(sys.argv[1])
models = [warmstart.load(folder) for folder in sys.argv[2:]]
print(json.dumps([[list(map(float.hex, r["probabilities"].values())) for r in m.predict(sentences)] for m in models]))
"""
    printed = in_a_fresh_process(program, json.dumps(SENTENCES), *[adapted(*of(name)) for name in STRATEGIES])
    return dict(zip(STRATEGIES, json.loads(printed), strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_fresh_process_predicts_the_same(strategy: str, adapted: Adapted, fresh: dict[str, Any]) -> None:
    model = package.load(adapted(*of(strategy)))
    found = model.predict(SENTENCES)
    assert [[p.hex() for p in record["probabilities"].values()] for record in found] == fresh[strategy]
    assert [list(record["probabilities"]) for record in found] == [list(model.labels)] * len(SENTENCES)
    for record in found:
        assert record["probability"] == max(record["probabilities"].values()) == record["probabilities"][record["label"]]
    for text, record in zip(SENTENCES[:5], found, strict=False):  # whatever company a row is in
        assert model.predict([text])[0]["probabilities"] == pytest.approx(record["probabilities"], abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_report_agrees_with_the_folder(strategy: str, adapted: Adapted, test_csv: Path, warmstart: Run) -> None:
    folder = adapted(*of(strategy))
    report = json.loads((folder / "report.json").read_text())
    assert (report["measured_on"], report["metrics"]["accuracy"]["n"]) == ("test rows", 150)
    code, evaluated, _ = warmstart("evaluate", folder, test_csv)
    assert (code, evaluated["metrics"]) == (0, report["metrics"])
    assert [rung["strategy"] for rung in report["ladder"] if rung["chosen"]] == [report["strategy"]] == [strategy]
    if strategy != "majority":
        assert report["metrics"]["accuracy"]["value"] > 0.42  # of three classes, by a random body


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_folder_is_plain_files_and_its_body_opens_elsewhere(strategy: str, adapted: Adapted) -> None:
    from safetensors import safe_open
    from transformers import AutoModel

    folder = adapted(*of(strategy))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".html", ".txt"}
    assert {"card.json", "recipe.json", "report.json", "report.html", "README.md", "warmstart.json"} <= {path.name for path in files}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                assert list(tensors.keys())
        else:
            text = path.read_bytes().decode("utf-8")  # neither a pickle (0x80) nor an archive of one is UTF-8 text without controls
            assert not any(ord(c) < 32 and c not in "\n\r\t" for c in text)
    card = Card.read(folder)
    assert (card.head == "none") == (strategy in ("majority", "classic")) == (not (folder / "config.json").exists())
    assert card.labels == tuple(sorted(LABELS))
    if card.head != "none":
        body, info = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert sum(p.numel() for p in body.parameters()) == card.backbone.parameters


def agrees_with_transformers(folder: Path) -> None:
    from transformers import pipeline

    assert Card.read(folder).head == "native"
    model = package.load(folder, precision="float32")
    texts = [*SENTENCES, " ".join(SENTENCES)]  # the last is longer than the body takes
    classify = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    theirs = classify(texts, truncation=True)
    for mine, other in zip(model.predict(texts), theirs, strict=True):
        assert mine["label"] == other[0]["label"]
        assert mine["probabilities"] == pytest.approx({o["label"]: o["score"] for o in other}, abs=1e-4)


@pytest.mark.parametrize("strategy", MOVING)
def test_pipeline_agrees_with_a_native_head(strategy: str, adapted: Adapted) -> None:
    agrees_with_transformers(adapted(*native(strategy)))


def test_compatible_with_transformers(adapted: Adapted) -> None:
    folder = adapted("--compatible", "transformers", "--set", "strategy.epochs=1", "--precision", "float32")
    agrees_with_transformers(folder)
    ladder = {rung["strategy"]: rung for rung in json.loads((folder / "report.json").read_text())["ladder"]}
    assert ladder["classic"]["score"] > 0.9  # climbed for comparison, though it may not be chosen
    assert not ladder["classic"]["chosen"]


# What was made can be made again ------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert found
    return found


@pytest.fixture(scope="module")
def ladder_folder(adapted: Adapted) -> Path:
    """A climb of the whole ladder."""
    return adapted("--set", "strategy.epochs=1", "--seed", "3")


def test_the_ladder_is_climbed_from_cheap_to_dear(ladder_folder: Path) -> None:
    report = json.loads((ladder_folder / "report.json").read_text())
    names = [rung["strategy"] for rung in report["ladder"]]
    assert [name.partition(" ")[0] for name in names] == ["majority", "classic", "linear_probe", "tail", "tail", "lora", "full", "soup"]
    scores = {rung["strategy"]: rung["score"] for rung in report["ladder"]}
    assert all(score is not None for score in scores.values())
    assert sum(rung["chosen"] for rung in report["ladder"]) == 1
    assert scores["majority"] < 0.5 < scores["linear_probe"] < scores["classic"]  # words decide here, and the body is random
    assert report["strategy"] == "classic"
    assert "Pre-training was not needed" in report["verdict"][0]
    assert report["learning_curve"]
    assert report["errors"][0]["neighbours"]


@pytest.mark.parametrize("strategy", ["lora", "full", "linear_probe"])
def test_a_recipe_run_again_gives_the_same_bits(strategy: str, adapted: Adapted, tmp_path: Path, warmstart: Run) -> None:
    folder = adapted(*of(strategy))
    code, report, err = warmstart("adapt", "--recipe", folder / "recipe.json", "--out", tmp_path / "again")  # with a store of its own
    assert code == 0, err
    assert weights(tmp_path / "again") == weights(folder)
    assert report["metrics"] == json.loads((folder / "report.json").read_text())["metrics"]


def test_the_recipe_of_a_whole_ladder_run_again_chooses_the_same(ladder_folder: Path, tmp_path: Path, warmstart: Run) -> None:
    code, report, err = warmstart("adapt", "--recipe", ladder_folder / "recipe.json", "--out", tmp_path / "again")
    assert code == 0, err
    assert weights(tmp_path / "again") == weights(ladder_folder)
    before = json.loads((ladder_folder / "report.json").read_text())
    assert [(r["strategy"], r["score"]) for r in report["ladder"]] == [(r["strategy"], r["score"]) for r in before["ladder"]]


def test_a_second_adapt_starts_from_the_store(train_csv: Path, test_csv: Path, backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    args = ["adapt", train_csv, "--test", test_csv, "--backbone", backbone, "--strategy", "linear_probe", "--out"]
    _, first, _ = warmstart(*args, tmp_path / "first")
    _, second, _ = warmstart(*args, tmp_path / "second")
    assert not any("store" in warning for warning in first["warnings"])
    assert any("2,000 of 2,000 states came from the activation store (100%)" in warning for warning in second["warnings"])
    assert weights(tmp_path / "first") == weights(tmp_path / "second")


def test_a_changed_file_is_refused(adapted: Adapted, tmp_path: Path, warmstart: Run) -> None:
    folder = shutil.copytree(adapted(*of("linear_probe")), tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedModel, match=r"model\.safetensors was changed"):
        package.load(folder)
    code, printed, _ = warmstart("predict", folder, "my card")
    assert (code, printed["error"]["kind"]) == (2, "DamagedModel")


# Kinds of data ------------------------------------------------------------------------------------------------------------------------


def quick(data: Any, tmp_path: Path, backbone: Path, **more: Any) -> tuple[package.Model, dict[str, Any]]:
    """A model from rows in a list, and its report."""
    arguments = {"strategy": "linear_probe", "budget": 60, "seed": 1, **more}
    model = package.adapt(data, out=tmp_path / "model", backbone=backbone, **arguments)
    return model, json.loads((tmp_path / "model" / "report.json").read_text())


@pytest.mark.slow
def test_eight_examples_a_class(tmp_path: Path, backbone: Path, test_csv: Path) -> None:
    options = {"strategy": {"epochs": 1, "contrastive": 2}}
    model, report = quick(rows(24), tmp_path, backbone, strategy="auto", test=str(test_csv), options=options)
    assert report["metrics"]["accuracy"]["value"] > 0.5
    rungs = {rung["strategy"]: rung for rung in report["ladder"]}
    assert rungs["majority"]["examples"] == 4 * 24  # repeats that cost nothing
    assert rungs["linear_probe"]["examples"] == 24
    climbed = [name for name, rung in rungs.items() if rung["score"] is not None and name not in ("majority", "classic", "linear_probe")]
    assert len(climbed) == 1  # the favourite alone
    assert 0 < rungs[climbed[0]]["examples"] <= 24
    passed = [rung for name, rung in rungs.items() if name not in climbed and rung["score"] is None]
    assert passed
    assert all(climbed[0] in rung["note"] and "passed over" not in rung["note"] for rung in passed)
    assert model.card.data.rows == 24
    again = tmp_path / "again"
    package.adapt(rows(24), recipe=tmp_path / "model" / "recipe.json", test=str(test_csv), out=again)
    weights = {path.name: path.read_bytes() for path in (tmp_path / "model").glob("*.safetensors")}
    assert weights
    assert weights == {path.name: path.read_bytes() for path in again.glob("*.safetensors")}


@pytest.mark.parametrize("form", ["list", "bar"])
def test_several_labels_a_row(form: str, tmp_path: Path, backbone: Path) -> None:
    random = np.random.default_rng(0)
    sets = [list(random.choice(LABELS, int(random.integers(0 if form == "list" else 1, 3)), replace=False)) for _ in range(300)]
    table = [{"text": sentence(labels, random), "label": labels if form == "list" else "|".join(labels)} for labels in sets]
    model, report = quick(table, tmp_path, backbone)
    assert (report["task"], report["main_metric"]) == ("multilabel", "example_f1")
    assert report["metrics"]["example_f1"]["value"] > 0.6
    found = model.predict(["card chip loan debt", "the bank"])
    assert set(found[0]["label"]) <= set(LABELS)
    assert set(found[0]["probabilities"]) == set(LABELS)


def test_several_labels_with_a_native_head(tmp_path: Path, backbone: Path) -> None:
    from transformers import pipeline

    random = np.random.default_rng(0)
    sets = [list(random.choice(LABELS, int(random.integers(1, 3)), replace=False)) for _ in range(450)]
    table = [{"text": sentence(labels, random), "label": labels} for labels in sets]
    options = {"strategy": {"head": "native", "epochs": 2}}
    model, _ = quick(table, tmp_path, backbone, strategy="full", options=options, precision="float32")
    theirs = pipeline("text-classification", model=str(model.folder), top_k=None, device="cpu")(SENTENCES)
    for mine, other in zip(model.predict(SENTENCES), theirs, strict=True):
        assert mine["probabilities"] == pytest.approx({o["label"]: o["score"] for o in other}, abs=1e-4)


def test_pairs_of_texts(tmp_path: Path, backbone: Path) -> None:
    """Whether two texts are of the same class can only be told from both."""
    random = np.random.default_rng(0)
    table = []
    for i in range(300):
        first, other = random.permutation(LABELS)[:2]
        second = first if i % 2 else other
        table.append({"one": sentence([first], random), "two": sentence([second], random), "label": "same" if i % 2 else "different"})
    column = {"text": "one", "text_pair": "two", "label": "label"}
    model, report = quick(table, tmp_path, backbone, column=column)
    assert report["data"]["columns"] == column
    assert model.card.columns == column
    pair = (table[0]["one"], table[0]["two"])
    from_table = model.predict([{"one": pair[0], "two": pair[1]}])
    assert model.predict([pair]) == from_table
    assert model.predict([(pair[0], pair[0])]) != from_table
    with pytest.raises(package.errors.DataError, match="2: text, text_pair"):
        model.predict(["only one text"])
    with pytest.raises(package.errors.ColumnNotFound, match="text_pair"):
        model.predict([{"one": "no second column"}])


def test_groups_stay_together(tmp_path: Path, backbone: Path) -> None:
    """Rows of a group say the same words; were a group on both sides, its made-up label could be known."""
    random = np.random.default_rng(0)
    table = []
    for group in range(120):
        text, label = sentence([LABELS[group % 3]], random), LABELS[int(random.integers(3))]
        table += [{"text": text, "label": label, "customer": group} for _ in range(4)]
    _, together = quick(table, tmp_path / "a", backbone, strategy="classic", group="customer")
    _, apart = quick(table, tmp_path / "b", backbone, strategy="classic")
    assert together["metrics"]["accuracy"]["value"] < 0.55 < 0.8 < apart["metrics"]["accuracy"]["value"]
    assert "grouped by customer" in together["data"]["split"]


def test_a_label_that_only_the_test_has_is_counted(tmp_path: Path, backbone: Path) -> None:
    test = [*rows(60, seed=5), *({"text": f"the weather {i}", "label": "weather"} for i in range(3))]
    _, report = quick(rows(240), tmp_path, backbone, strategy="classic", test=test)
    assert any(
        "3 test rows carry labels that no training row has" in warning and "'weather' (3)" in warning for warning in report["warnings"]
    )
    assert report["metrics"]["accuracy"]["n"] == 63
    assert report["metrics"]["accuracy"]["value"] <= 60 / 63


def test_a_class_with_one_example_is_a_warning(tmp_path: Path, backbone: Path) -> None:
    model, report = quick([*rows(90), {"text": "the sun", "label": "weather"}], tmp_path, backbone)
    assert any("'weather'" in warning and "single training row" in warning for warning in report["warnings"])
    assert "weather" in model.labels


def test_rows_as_frames(tmp_path: Path, backbone: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = rows(120)
    first, _ = quick(pandas.DataFrame(table), tmp_path / "a", backbone, strategy="classic")
    second, _ = quick(polars.DataFrame(table), tmp_path / "b", backbone, strategy="classic")
    assert weights(first.folder) == weights(second.folder)
    assert first.predict(pandas.DataFrame({"text": SENTENCES})) == second.predict(SENTENCES)


def test_a_model_folder_is_a_backbone(adapted: Adapted, tmp_path: Path) -> None:
    start = adapted(*of("full"))
    model, report = quick(rows(120), tmp_path, start)
    assert report["metrics"]["accuracy"]["value"] > 0.45
    assert model.card.backbone.name == str(start)


# Wrong input --------------------------------------------------------------------------------------------------------------------------


def test_a_budget_too_small_leaves_nothing(train_csv: Path, backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    args = ["adapt", train_csv, "--backbone", backbone, "--strategy", "full", "--out", tmp_path / "m", "--quiet"]
    code, printed, err = warmstart(*args, "--budget", "0.1")
    assert (code, printed["error"]["kind"]) == (2, BudgetTooSmall.__name__)
    assert "--budget" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nor anything that would stand in the way of the next try
    assert warmstart(*args, "--budget", "1m", "--set", "strategy.epochs=0.5")[0] == 0


def test_a_small_budget_is_kept(train_csv: Path, test_csv: Path, backbone: Path, tmp_path: Path, warmstart: Run) -> None:
    args = ["adapt", train_csv, "--test", test_csv, "--backbone", backbone, "--out", tmp_path / "m"]
    code, report, err = warmstart(*args, "--budget", "10s", "--set", "strategy.epochs=100")
    assert code == 0, err
    assert report["seconds"] < 11 + 5  # a quiet machine needs no extra
    dear = [rung for rung in report["ladder"] if rung["strategy"] in ("lora", "full")]
    assert all(rung["note"] for rung in dear)


def table_of(kind: str, folder: Path) -> Path:
    table: list[dict[str, Any]] = rows(60)
    if kind == "one class":
        table = [{**row, "label": "cards"} for row in table]
    if kind == "empty text":
        table[3]["text"] = " "
    if kind == "no label":
        table[5]["label"] = ""
    return write_csv(folder / "data.csv", table)


WRONG = [
    ("one class", [], "DataError", "at least two different labels"),
    ("empty text", [], "DataError", "line 5: empty text"),
    ("no label", [], "DataError", "line 7: missing label"),
    ("fine", ["--column", "text=txet"], "ColumnNotFound", "'text'"),
    ("fine", ["--strategy", "lroa"], "UnknownPart", "'lora'"),
    ("fine", ["--task", "clasification"], "UnknownPart", "'classification'"),
    ("fine", ["--set", "strategy.epoch=1"], "BadOption", "epochs"),
    ("fine", ["--strategy", "tail", "--set", "strategy.blocks=9"], "BadOption", "1 to 3"),
    ("fine", ["--strategy", "linear_probe", "--set", "strategy.layers=9"], "BadOption", "0 to 3"),
    ("fine", ["--strategy", "classic", "--compatible", "transformers"], "BadOption", "tail, lora, full or soup"),
    ("fine", ["--backbone", "./none"], "BackboneNotFound", "./none"),
    ("fine", ["--device", "tpu"], "BadOption", "cpu"),
    ("fine", ["--test", "none.csv"], "FileNotFound", "none.csv"),
]


@pytest.mark.parametrize(("kind", "flags", "error", "said"), WRONG, ids=[" ".join([kind, *flags]) for kind, flags, _, _ in WRONG])
def test_wrong_input_leaves_nothing(
    kind: str, flags: list[str], error: str, said: str, tmp_path: Path, backbone: Path, warmstart: Run
) -> None:
    data = table_of(kind, tmp_path)
    code, printed, err = warmstart("adapt", data, "--backbone", backbone, "--out", tmp_path / "m", "--quiet", *flags)
    assert (code, printed["error"]["kind"]) == (2, error)
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_bad_rows_are_left_out_and_counted(tmp_path: Path, backbone: Path, warmstart: Run) -> None:
    data = table_of("empty text", tmp_path)
    args = ["adapt", data, "--backbone", backbone, "--strategy", "classic", "--out", tmp_path / "m", "--skip-bad"]
    code, report, _ = warmstart(*args)
    assert code == 0
    assert any("1 row of" in warning and "empty text" in warning for warning in report["warnings"])


def test_a_folder_that_is_there_is_kept(adapted: Adapted, tmp_path: Path, backbone: Path, warmstart: Run) -> None:
    data = table_of("fine", tmp_path)
    args = ["adapt", data, "--backbone", backbone, "--strategy", "classic", "--out", tmp_path / "m"]
    assert warmstart(*args)[0] == 0
    card = (tmp_path / "m" / "card.json").read_bytes()
    code, printed, _ = warmstart(*args)
    assert (code, printed["error"]["kind"]) == (2, "FolderExists")
    assert (tmp_path / "m" / "card.json").read_bytes() == card
    assert warmstart(*args, "--force", "--seed", "5")[0] == 0
    assert json.loads((tmp_path / "m" / "recipe.json").read_text())["seed"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    code, printed, _ = warmstart(*args[:-1], tmp_path / "mine", "--force")
    assert (code, printed["error"]["kind"]) == (2, "FolderExists")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_threads_of_torch_are_as_they_were(adapted: Adapted) -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    package.load(adapted(*of("full"))).predict(SENTENCES)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
