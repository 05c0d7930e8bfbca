"""The objective autoencoder: its contract, its variants, and bodies that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_bars import bars, patterns
from tiny_learner import assert_resumes
from tiny_worth import gains
from warmstart.core import registry
from warmstart.core.errors import BadOption, BudgetTooSmall
from warmstart.engine import loop, statistics, store
from warmstart.engine.learner import Setting
from warmstart.testing import check_objective, check_part


def _learner(
    folder: Path, *, channels: int = 1, seconds: float | None = None, precision: torch.dtype = torch.float32, **options: Any
) -> Any:
    data = bars(200, channels=channels)
    return registry.create("objectives", "autoencoder", options=options).prepare(
        Setting(data, folder, seconds=seconds, precision=precision)
    )


def _train(learner: Any, folder: Path) -> tuple[float, float]:
    """Validation loss before and after."""
    before = learner.validate(learner.module.eval(), 0)["loss"]
    loop.run(learner, loop.How(folder, 0, torch.device("cpu"), learner.setting.precision))
    return before, learner.validate(learner.module.eval(), 0)["loss"]


VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {"architecture": "dense", "hidden": "20,6"},
    "denoising": {"architecture": "dense", "hidden": "30", "noise": "masking"},
    "sparse": {"architecture": "dense", "hidden": "30", "sparsity": 0.1},
    "contractive": {"architecture": "dense", "hidden": "20", "activation": "sigmoid", "contraction": 0.001},
    "deep contractive": {"architecture": "dense", "hidden": "20,8", "contraction": 0.001},
    "convolutional": {"architecture": "convolutional", "hidden": "8,8", "norm": "none", "noise": "salt", "noise_amount": 0.1},
    "masked": {"architecture": "masked", "width": 32, "depth": 1, "patch": 2, "masked": 0.5},
}


def test_part(tmp_path: Path) -> None:
    check_part("objectives", "autoencoder")


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "sparse"])  # whose penalty is no mean over images
def test_contract(variant: str, tmp_path: Path) -> None:
    options = {**VARIANTS[variant], "batch": 21, "steps": 4, "noise": VARIANTS[variant].get("noise", "none")}
    check_objective("autoencoder", Setting(bars(60, channels=1), tmp_path), options=options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reconstruction_becomes_better(variant: str, tmp_path: Path) -> None:
    learner = _learner(tmp_path, **VARIANTS[variant], steps=60, batch=32, lr=0.01)
    before, after = _train(learner, tmp_path)
    assert after < 0.9 * before
    measures = learner.finish(learner.module)
    assert measures["validation_loss"].value == pytest.approx(after, rel=1e-4)
    (picture,) = learner.pictures(learner.module)
    assert picture.pixels.isfinite().all()
    assert picture.pixels.shape[1] == 10 * 9 - 1


def test_in_bfloat16_and_colour(tmp_path: Path) -> None:
    learner = _learner(
        tmp_path, channels=3, precision=torch.bfloat16, architecture="convolutional", hidden="8", steps=40, batch=32, lr=0.01
    )
    before, after = _train(learner, tmp_path)
    assert after < 0.7 * before
    learner.save(tmp_path / "body")
    body = store.load_body(tmp_path / "body")
    assert body(pixel_values=torch.rand(2, 3, 8, 8))[0].shape == (2, 8, 4, 4)


def test_sparsity_and_contraction_do_what_they_say(tmp_path: Path) -> None:
    def code(**options: Any) -> torch.Tensor:
        learner = _learner(tmp_path / str(options), architecture="dense", hidden="30", activation="sigmoid", steps=150, lr=0.01, **options)
        _train(learner, tmp_path / str(options))
        x = torch.rand(50, 1, 8, 8).requires_grad_(True)
        found = learner.module.encoder(pixel_values=x)[0]
        slope = torch.autograd.grad(found.sum(), x)[0].square().sum()
        return torch.stack([found.mean(), slope]).detach()

    plain, sparse, smooth = code(), code(sparsity=0.05, sparsity_cost=0.1), code(contraction=0.1)
    assert sparse[0] < 0.6 * plain[0]
    assert smooth[1] < 0.5 * plain[1]


def test_a_masked_autoencoder_leaves_a_vit(tmp_path: Path) -> None:
    learner = _learner(tmp_path, channels=3, **VARIANTS["masked"], steps=1)
    learner.save(tmp_path / "body")
    body: Any = store.load_body(tmp_path / "body")
    assert type(body).__name__ == "ViTModel"
    encoder = registry.create("modalities", "image").encoder(tmp_path / "body", 0)
    picture = registry.create("modalities", "image").load([(bars(1, channels=3)[0],)], folder=Path(), body=tmp_path / "body")
    batch = encoder.collate(encoder.encode(picture))
    assert torch.allclose(batch["pixel_values"], (torch.from_numpy(bars(1, channels=3)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5, atol=1e-5)
    step = learner.batch(0, 0)
    order = torch.arange(16).expand(len(step.target), 16)
    whole = learner.module.vit(pixel_values=step.inputs).last_hidden_state
    with torch.no_grad():  # with every patch seen the encoder is the whole ViT
        tokens = learner.module.vit.embeddings(step.inputs)
        for layer in learner.module.vit.layers:
            tokens = layer(tokens, None)
    assert torch.allclose(learner.module.vit.layernorm(tokens), whole, atol=1e-5)
    drawn = learner.module(step.inputs, order, 16)
    assert drawn.shape == (len(step.target), 16, 12)


def test_the_dial(tmp_path: Path) -> None:
    timed = _learner(tmp_path, seconds=2.0, architecture="dense")
    assert 1 <= timed.plan.seconds <= 2.1 or timed.settings["steps"] == 400
    assert timed.settings["hidden"] == [256, 64]
    assert timed.phases()[0].most == 400, "where steps turn out quicker"
    assert _learner(tmp_path, seconds=2.0, steps=3).phases()[0].most == 0
    assert _learner(tmp_path).settings["architecture"] == "convolutional"
    assert _learner(tmp_path, steps=0).phases()[0].steps == 0
    with pytest.raises(BudgetTooSmall):
        _learner(tmp_path, seconds=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": "8,8,8,8"},
        {"hidden": "a"},
        {"sparsity": 0.1},
        {"architecture": "dense", "sparsity": 2.0},
        {"architecture": "masked", "patch": 3},
        {"architecture": "masked", "noise": "salt"},
        {"masked": 1.0},
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadOption):
        _learner(tmp_path, **options)


def test_a_pretrained_body_is_worth_more_than_the_same_at_random(tmp_path: Path) -> None:
    """Two labels a class, ten draws, a linear classifier on the code: are noisy patterns told apart?"""
    (images, labels), codes = patterns(500, seed=1), []
    for steps in (0, 300):
        options = {"architecture": "dense", "hidden": "24", "activation": "sigmoid", "noise": "masking", "steps": steps, "lr": 0.01}
        learner = registry.create("objectives", "autoencoder", options=options).prepare(Setting(patterns(800)[0], tmp_path))
        loop.run(learner, loop.How(tmp_path / str(steps), 0, torch.device("cpu"), torch.float32))
        learner.save(tmp_path / "body")
        with torch.no_grad():
            codes.append(store.load_body(tmp_path / "body")(pixel_values=torch.from_numpy(images)[:, None] / 255)[0].numpy())
    low, _ = statistics.mean_interval(gains(codes, labels), bounds=(-1.0, 1.0))
    assert low > 0.05


@pytest.mark.parametrize("variant", ["dense", "convolutional", "masked"])
def test_a_killed_run_goes_on_to_the_same_bits(variant: str, tmp_path: Path) -> None:
    options = {**VARIANTS[variant], "batch": 20, "steps": 24}
    assert_resumes(lambda folder: _learner(folder, channels=3, **options), _train, tmp_path, calls=18)


@pytest.mark.parametrize("variant", ["dense", "convolutional", "masked"])
def test_the_plan_counts_the_activations_of_a_step(variant: str, tmp_path: Path) -> None:
    few, many = (_learner(tmp_path, **{**VARIANTS[variant], "steps": 0, "batch": batch}).plan.memory_bytes for batch in (8, 16))
    least = 8 * 8 * 64  # of 8 more images at least the pixels that come out, and their gradients
    assert many - few >= least
    if variant == "convolutional":
        assert many - few >= 4 * least, "eight maps of full size each way"
