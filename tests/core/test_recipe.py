"""Recipes: what is read, what is refused, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.core import recipe as recipes
from warmstart.core.errors import BadOption, FileNotFound
from warmstart.core.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("60s", 60), ("5m", 300), ("1.5h", 5400), (" 2 M ", 120), (7, 7), (0.5, 0.5), (".5s", 0.5)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert recipes.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-3", "1e9", "nan", "inf", "5m5", True])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadOption, match=r"5m or 1\.5h"):
        recipes.parse_seconds(text)


def test_toml_with_tables(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'data = "a.csv"\nbudget = "2m"\nseed = 3\n[column]\ntext = "review"\n'
        '[strategy]\nname = "tail"\nhead = "native"\n[modality]\nlowercase = true\n'
    )
    assert recipes.read(path, Recipe()) == Recipe(
        data="a.csv",
        budget=120.0,
        seed=3,
        column={"text": "review"},
        strategy="tail",
        options={"strategy": {"head": "native"}, "modality": {"lowercase": True}},
    )


def test_written_json_reads_back(tmp_path: Path) -> None:
    recipe = Recipe(
        data="größe.csv", test="t.csv", column={"text": "x"}, options={"task": {"a": 1}}, plan={"order": ["tail", 3]}, skip_bad=True
    )
    path = tmp_path / "recipe.json"
    path.write_text(recipes.as_json(recipe), encoding="utf-8")
    assert recipes.read(path, Recipe()) == recipe


def test_sets_override_and_merge() -> None:
    base = Recipe(options={"strategy": {"head": "pooled", "blocks": 2}}, column={"label": "stars"})
    changed = recipes.with_sets(base, ["strategy.head=native", "seed=3", "column.text=review", "strategy=tail", "task.sep=a=b"])
    assert changed.options == {"strategy": {"head": "native", "blocks": 2}, "task": {"sep": "a=b"}}
    assert (changed.seed, changed.strategy, changed.column) == (3, "tail", {"label": "stars", "text": "review"})
    assert base.options["strategy"]["head"] == "pooled"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgt = 3", "no key 'budgt'. Did you mean 'budget'?"),
        ("seed = 1.5", "seed = 1.5"),
        ("seed = -1", "seed = -1"),
        ("budget = 0", "budget = 0"),
        ('budget = "long"', "budget: 'long' is not a duration"),
        ("max_length = 7", "max_length = 7"),
        ('prefer = "fastest"', "prefer = 'fastest'"),
        ("data = 3", "data = 3"),
        ('column = "text"', "column = 'text'"),
        ("[column]\ntext = 3", "column.text = 3"),
        ("[options.strategies]\nhead = 1", "no options for 'strategies'. Did you mean 'strategy'?"),
        ("[options]\nstrategy = 1", "options.strategy = 1"),
        ("seed = = 3", "is not a readable TOML file"),
        ('strategy = "tail"\n[strategy]\nhead = "native"', "is not a readable TOML file"),
    ],
)
def test_what_a_bad_file_says(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(BadOption) as caught:
        recipes.read(path, Recipe())
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b"[1, 2]"])
def test_bad_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(BadOption, match=r"recipe\.json"):
        recipes.read(path, Recipe())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFound):
        recipes.read(tmp_path / "none.toml", Recipe())


@pytest.mark.parametrize(("key", "meant"), [("beam", "'task.beam'"), ("epochs", "'task.epochs' or 'strategy.epochs'"), ("sed", "'seed'")])
def test_an_option_without_its_family_is_named_with_it(key: str, meant: str) -> None:
    with pytest.raises(BadOption, match=f"no key '{key}'. Did you mean {meant}\\?"):
        recipes.with_sets(Recipe(), [f"{key}=3"])


@pytest.mark.parametrize("text", ["seed", "=3", "seed=", "sed=3", "strategy.=native", ".head=native", "seed.a=3"])
def test_bad_sets(text: str) -> None:
    with pytest.raises(BadOption, match="--set"):
        recipes.with_sets(Recipe(), [text])
