"""The objective wav2vec: its mathematics, and what every objective must keep to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import tiny_sound
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, BudgetTooSmall, ColumnNotFound, DataError
from warmstart.engine import cut, loop, network, statistics, store, wav2vec
from warmstart.engine.learner import Setting
from warmstart.engine.wav2vec import CodeHead, Contrast, Masked
from warmstart.engine.wav2vec_learner import cut_evenly, fresh_body
from warmstart.samples import tiny_backbone
from warmstart.testing import check_objective

TARGETS = ("clusters", "random_projection", "quantizer")
SMALL = {"width": "16", "depth": "2", "steps": "6", "codes": "8", "batch": "3", "negatives": "5"}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return tiny_sound.folder(tmp_path_factory.mktemp("sounds"), 30)


def _learner(sounds, place, targets="clusters", **how):
    part = registry.create("objectives", "wav2vec", options=SMALL | {"targets": targets} | how.pop("options", {}))
    return part.prepare(Setting(data=sounds, folder=place, **how))


def _config(width=16, depth=2):
    return wav2vec.body_config(width=width, depth=depth, rate=8_000)


# Mathematics --------------------------------------------------------------------------------------------------------------------------


def test_masks_are_spans_that_never_cover_everything():
    random = np.random.default_rng(0)
    shares = []
    for n in (2, 3, 7, 20, 200):
        for _ in range(20):
            mask = wav2vec.spans(n, share=0.65, span=10, random=random)
            assert 0 < mask.sum() < n
            edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
            if n >= 20:
                assert np.diff(edges)[::2].min() >= min(10, n // 4)  # no run is shorter than a span
            if n == 200:
                shares.append(mask.mean())
    assert 0.4 < np.mean(shares) < 0.55  # spans overlap: wav2vec 2.0 reports 49 % for these numbers


def test_negatives_are_never_the_frame_itself():
    drawn = wav2vec.negatives_of(6, 200, np.random.default_rng(0))
    assert set(drawn.ravel()) == set(range(6))
    assert (drawn != np.arange(6)[:, None]).all()
    assert wav2vec.negatives_of(1, 3, np.random.default_rng(0)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000])
def test_frames_are_counted_as_the_body_makes_them(rate):
    body = fresh_body(wav2vec.body_config(width=16, depth=1, rate=rate), 0).eval()
    field, stride = wav2vec.field_and_stride(body.config)
    assert 0.014 < stride / rate < 0.03
    for samples in (field - 1, field, field + stride - 1, field + stride, 3_210):
        n = wav2vec.n_frames(samples, body.config)
        assert n == max(0, (samples - field) // stride + 1)
    with torch.no_grad():
        assert body(torch.randn(1, 3_210)).last_hidden_state.shape[1] == n


def _batch(m, *, k=4, g=2, v=3, world=1, total=None, block=None):
    random = np.random.default_rng(0)
    return Masked(
        wave=torch.zeros(1, 1),
        attention_mask=torch.ones(1, 1),
        mask=torch.ones(1, m, dtype=torch.bool),
        row=torch.zeros(m, dtype=torch.long),
        targets=torch.arange(m) % v,
        noise=torch.from_numpy(random.gumbel(size=(m, g * v)).astype(np.float32)),
        negatives=torch.from_numpy(wav2vec.negatives_of(m, k, random)),
        block=torch.zeros(m, dtype=torch.long) if block is None else block,
        blocks=1,
        total=total or m,
        world=world,
        temperature=1.0,
        frames=m,
    )


def test_a_code_head_that_knows_nothing_loses_the_logarithm_of_the_codes():
    head = CodeHead(8, 5)
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    found = head(torch.randn(7, 8), torch.zeros(7, 4), _batch(7))
    assert float(found["loss"].detach()) == pytest.approx(np.log(5), abs=1e-6)


def test_the_contrastive_loss_is_that_of_transformers():
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **_config(), num_codevector_groups=2, num_codevectors_per_group=6, codevector_dim=8, proj_codevector_dim=8, num_negatives=4
    )
    theirs = Wav2Vec2ForPreTraining(config).eval()
    torch.nn.init.uniform_(theirs.quantizer.codevectors)
    torch.nn.init.normal_(theirs.quantizer.weight_proj.weight)
    ours = Contrast(16, config.conv_dim[-1], groups=2, codes=6, projected=8).eval()
    ours.score.load_state_dict(theirs.quantizer.weight_proj.state_dict())
    ours.of_code.load_state_dict(theirs.project_q.state_dict())
    ours.of_state.load_state_dict(theirs.project_hid.state_dict())
    ours.vectors.data.copy_(theirs.quantizer.codevectors.view(2, 6, 4))
    wave = torch.randn(1, 4_000)
    n = wav2vec.n_frames(4_000, config)
    mask = torch.from_numpy(wav2vec.spans(n, share=0.5, span=3, random=np.random.default_rng(0)))[None]
    m = int(mask.sum())
    negatives = wav2vec.negatives_of(m, 4, np.random.default_rng(1))
    whole = torch.zeros(1, n, 4, dtype=torch.long)
    whole[mask] = mask[0].nonzero().squeeze(1)[torch.from_numpy(negatives)]
    with torch.no_grad():
        expected = theirs(wave, mask_time_indices=mask, sampled_negative_indices=whole)
        output = theirs.wav2vec2(wave, mask_time_indices=mask)
        batch = dataclasses.replace(_batch(m), negatives=torch.from_numpy(negatives), noise=None)
        found = ours(output.last_hidden_state[mask], output.extract_features[mask], batch)
    assert float(found["losses"].sum()) == pytest.approx(float(expected.contrastive_loss), rel=1e-4)


def test_the_quantizer_has_a_gradient_through_its_choice_and_is_pushed_to_use_its_codes():
    torch.manual_seed(0)
    head = Contrast(8, 4, groups=2, codes=3, projected=4).train()
    states, features = torch.randn(9, 8), torch.randn(9, 4)
    found = head(states, features, _batch(9))
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    one = Contrast(8, 4, groups=2, codes=3, projected=4)
    torch.nn.init.zeros_(one.score.weight)
    even = one(states, features, _batch(9))
    torch.nn.init.constant_(one.score.bias, 0.0)
    with torch.no_grad():
        one.score.bias[::3] = 50.0  # every frame takes the first code of each group
    alone = one(states, features, _batch(9))
    assert float(even["perplexity"]) == pytest.approx(3, abs=1e-4)
    assert float(alone["perplexity"]) == pytest.approx(1, abs=1e-4)


def test_batches_of_an_epoch_hold_every_window_once_and_little_padding():
    random = np.random.default_rng(0)
    sizes = random.integers(5, 100, 203)
    parts = cut_evenly(np.arange(203), sizes, 12, random)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(203))
    sums = [sizes[p].sum() for p in parts]
    assert max(sums) - min(sums) < 2 * sizes.max()
    padded = sum(sizes[p].max() * len(p) for p in parts)
    assert padded < 1.3 * sizes.sum()
    assert min(map(len, cut_evenly(np.arange(9), np.array([1, 1, 1, 1, 1, 1, 1, 1, 900]), 2, random))) == 4


# What an objective must keep to ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
def test_the_contract(sounds, tmp_path, targets):
    check_objective("wav2vec", Setting(data=sounds, folder=tmp_path), options=SMALL | {"targets": targets})


def test_what_is_saved_hears_the_same(sounds, tmp_path):
    learner = _learner(sounds, tmp_path)
    learner.module.eval()
    learner.save(tmp_path / "body")
    body, batch = store.load_body(tmp_path / "body"), learner.batch(0, 0)
    encoder = registry.create("modalities", "audio").encoder(tmp_path / "body", 256)
    assert store.read_object(tmp_path / "body" / "preprocessor_config.json")["sampling_rate"] == 8_000
    with torch.no_grad():
        expected = learner.module.body(batch.wave, attention_mask=batch.attention_mask).last_hidden_state
        assert torch.equal(body(batch.wave, attention_mask=batch.attention_mask).last_hidden_state, expected)
    assert encoder.fingerprint


@pytest.mark.parametrize("targets", ["clusters", "quantizer"])
def test_an_interrupted_run_ends_with_the_same_bits(sounds, tmp_path, targets):
    class StopError(Exception):
        pass

    def how(name):
        return loop.How(folder=tmp_path / name, seed=0, device=torch.device("cpu"), precision=torch.float32)

    settings = _learner(sounds, tmp_path / "corpus", targets).settings
    straight = _learner(sounds, tmp_path / "corpus", targets, settings=settings)
    loop.run(straight, how("straight"))
    stopped = _learner(sounds, tmp_path / "corpus", targets, settings=settings)
    batch = stopped.batch

    def until(phase, step):
        if step == 4:
            raise StopError
        return batch(phase, step)

    stopped.batch = until
    with pytest.raises(StopError):
        loop.run(stopped, how("stopped"))
    resumed = _learner(sounds, tmp_path / "corpus", targets, settings=settings)
    loop.run(resumed, how("stopped"))
    assert all(torch.equal(a, b) for a, b in zip(straight.module.parameters(), resumed.module.parameters(), strict=True))
    metrics = resumed.finish(resumed.module)
    assert set(metrics) == {"validation_loss", "masked_accuracy", "codebook_perplexity"}
    assert all(m.low <= m.value <= m.high for m in metrics.values())
    assert resumed.validate(resumed.module, 0)["loss"] == pytest.approx(metrics["validation_loss"].value, rel=1e-5)
    assert all(0 <= float(p.pixels.min()) <= float(p.pixels.max()) <= 1 for p in resumed.pictures(resumed.module))


def test_padding_changes_nothing(sounds, tmp_path):
    learner = _learner(sounds, tmp_path)
    body = learner.module.body.eval()
    wave = torch.from_numpy(learner.sounds.wave(0))[None]
    n = wav2vec.n_frames(wave.shape[1], body.config)
    longer = torch.nn.functional.pad(wave, (0, 3_000))
    mask = (torch.arange(longer.shape[1]) < wave.shape[1]).long()[None]
    with torch.no_grad():
        alone = body(wave, attention_mask=torch.ones_like(wave, dtype=torch.long)).last_hidden_state
        padded = body(longer, attention_mask=mask).last_hidden_state[:, :n]
    assert (alone - padded).abs().max() < 1e-4


def test_it_learns(sounds, tmp_path):
    learner = _learner(sounds, tmp_path, options={"steps": "60", "width": "32", "lr": "0.003"})
    before = learner.validate(learner.module, 0)["loss"]
    loop.run(learner, loop.How(folder=tmp_path, seed=0, device=torch.device("cpu"), precision=torch.float32))
    assert learner.finish(learner.module)["validation_loss"].value < before - 0.2


def test_a_pretrained_body_is_worth_more_than_the_same_at_random(tmp_path):
    """Four labels a class, ten draws, a linear classifier on the mean of the states: are the vowels told apart?"""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part, found = registry.create("modalities", "audio"), []
    unlabelled, (given, labels) = tiny_sound.vowels(150)[0], tiny_sound.vowels(300, seed=1)
    for steps in (60, 0):
        options = {"width": "32", "steps": str(steps), "codes": "24", "batch": "6", "lr": "0.003"}
        learner = _learner(unlabelled, tmp_path, options=options)
        loop.run(learner, loop.How(folder=tmp_path / f"run{steps}", seed=0, device=torch.device("cpu"), precision=torch.float32))
        body = learner.module.body.eval()
        learner.save(tmp_path / "body")
        encoder = part.encoder(tmp_path / "body", 256)
        encoded = encoder.encode(part.load([(one,) for one in given], folder=tmp_path, body=tmp_path / "body"))
        with torch.no_grad():
            found.append(network.pooled_states(body, cut.find_trunk(body), encoder.collate(encoded)).flatten(1).numpy())
    gains = []
    for draw in range(10):
        order = np.random.default_rng(draw).permutation(len(labels))
        train = np.concatenate([order[labels[order] == label][:4] for label in tiny_sound.FORMANTS])
        test = np.setdiff1d(order, train)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        right = [model.fit(x[train], labels[train]).score(x[test], labels[test]) for x in found]
        gains.append(right[0] - right[1])
    low, _ = statistics.mean_interval(gains, bounds=(-1.0, 1.0))
    assert low > 0.05


def test_the_dial(sounds, tmp_path):
    options = {"width": None, "depth": None, "steps": None, "batch": None}
    part = registry.create("objectives", "wav2vec", options={k: v for k, v in (SMALL | options).items() if v is not None})
    tiny = part.prepare(Setting(data=str(sounds), folder=tmp_path))
    assert (tiny.settings["width"], tiny.settings["depth"]) == (128, 4)
    assert tiny.settings["steps"] == max(20, 40 * tiny.per_epoch)
    timed = _learner(sounds, tmp_path, options={"steps": "None"}, seconds=60.0)
    assert 20 <= timed.plan.steps <= 200 * timed.per_epoch
    assert 0 < timed.plan.seconds <= 60
    with pytest.raises(BudgetTooSmall, match="0 steps fit into 0 s"):
        part.prepare(Setting(data=str(sounds), folder=tmp_path, size="tiny", seconds=0.0))


def test_going_on_from_a_body(sounds, tmp_path):
    first = _learner(sounds, tmp_path / "a", options={"width": "24"})
    first.save(tmp_path / "body")
    own = {"width": "None", "depth": "None"}
    second = _learner(sounds, tmp_path / "b", start=tmp_path / "body", options=own)
    assert second.settings["width"] == 24
    assert torch.equal(second.module.body.masked_spec_embed, first.module.body.masked_spec_embed)
    with pytest.raises(BackboneNotFound, match=r"BertModel .* cannot be gone on with"):
        _learner(sounds, tmp_path / "c", start=tiny_backbone(tmp_path / "bert"), options=own)
    with pytest.raises(BadOption, match="width was given together with --from"):
        _learner(sounds, tmp_path / "d", start=tmp_path / "body")


def test_what_cannot_be_learned_from_is_said(tmp_path):
    random = np.random.default_rng(0)
    with pytest.raises(DataError, match="in a single window"):
        _learner([(tiny_sound.wave("up", random), 8_000)], tmp_path / "a")
    with pytest.raises(DataError, match="no recording is long enough"):
        _learner([(tiny_sound.wave("up", random)[:100], 8_000)] * 9, tmp_path / "b")
    with pytest.raises(DataError, match=r"row 2: gone\.wav: no such file"):
        _learner({"audio": [{"array": tiny_sound.wave("up", random), "sampling_rate": 8_000}, "gone.wav"]}, tmp_path / "c")


def test_wrong_options_and_columns_are_said(sounds, tmp_path):
    with pytest.raises(BadOption, match=r"mask = 1\.5"):
        _learner(sounds, tmp_path, options={"mask": "1.5"})
    with pytest.raises(BadOption, match="width = 12"):
        _learner(sounds, tmp_path, options={"width": "12"})
    with pytest.raises(ColumnNotFound, match="no column 'adio'"):
        _learner(sounds, tmp_path, column={"audio": "adio"})
    with pytest.raises(BadOption, match="windows for 40 processes"):
        _learner(sounds, tmp_path, rank=0, world=40)
