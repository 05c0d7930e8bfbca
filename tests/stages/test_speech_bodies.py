"""Bodies that bring a head of their own to speech recognition: a CTC layer, Whisper's decoder; and bodies that cannot do it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer

import tiny_sound
from warmstart import cli
from warmstart.core.errors import BackboneNotFound
from warmstart.core.recipe import Recipe
from warmstart.engine import ctc_head, dataset, model, store, transcripts, whisper_head
from warmstart.samples import tiny_sound_backbone


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    tiny_sound.spoken(folder, "train", 30)
    tiny_sound.spoken(folder, "test", 8, seed=1)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A Whisper of two blocks that hears 2 s, with a tokenizer of bytes."""
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("whisper")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokens.add_special_tokens(special)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=special[0]).save_pretrained(folder)
    size = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 32))}
    places = {"max_source_positions": 100, "max_target_positions": 40, "num_mel_bins": 40, "d_model": 16}
    config = transformers.WhisperConfig(
        **size, **places, vocab_size=261, eos_token_id=256, pad_token_id=256, bos_token_id=256, decoder_start_token_id=257
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        store.quiet_transformers()
        transformers.WhisperForConditionalGeneration(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=40, chunk_length=2).save_pretrained(folder)
    return folder


def _run(*args):
    return cli.main([str(arg) for arg in args])


def _adapt(data, out, *flags):
    how = ["--budget", "60s", "--precision", "float32", "--quiet", "--task", "speech-recognition"]
    return _run("adapt", data / "train.csv", "--test", data / "test.csv", "--out", out, *how, *flags)


def test_a_tokenizer_that_pads_and_cuts_does_neither_here(whisper, tmp_path):
    folder = shutil.copytree(whisper, tmp_path / "whisper")
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.enable_truncation(2)
    stored.enable_padding(length=20)
    stored.save(str(folder / "tokenizer.json"))
    how = {"language": "en", "beam": 1, "writing": transcripts.Writing()}
    assert len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(" a cow").ids) == 20
    assert whisper_head.of(folder, 2, **how)._encoded("a cow") == whisper_head.of(whisper, 2, **how)._encoded("a cow")


@pytest.mark.parametrize("strategy", ["linear_probe", "full"])
def test_whispers_decoder_is_the_head(data, whisper, tmp_path, strategy):
    flags = ["--set", "task.epochs=2"] if strategy == "linear_probe" else ["--set", "strategy.epochs=1"]
    assert _adapt(data, tmp_path / "m", "--backbone", whisper, "--strategy", strategy, "--set", "task.beam=2", *flags) == 0
    settings = json.loads((tmp_path / "m" / "head.json").read_text())["settings"]
    assert settings["kind"] == "whisper"
    assert settings["prompt"] == [257, 258, 259, 260]
    files = [str(data / "test" / f"{i:03}.wav") for i in range(2)]
    found = model.load(tmp_path / "m").predict(files)
    assert [row["prediction"] for row in found] == [model.load(tmp_path / "m").predict([f])[0]["prediction"] for f in files]
    assert all(0 <= row["probability"] <= 1 for row in found)


def test_whisper_without_the_language_is_a_clear_error(data, whisper, tmp_path, capsys):
    assert _adapt(data, tmp_path / "m", "--backbone", whisper, "--strategy", "linear_probe", "--set", "task.language=xx") == 2
    assert "no token for the language 'xx'" in capsys.readouterr().err
    encoder = tmp_path / "encoder"
    store.save_transformers(store.load_body(whisper), encoder)  # which needs no tokenizer
    whisper_head.check(encoder, "xx")
    with pytest.raises(BackboneNotFound, match=r"task\.language"):  # before any cost is measured
        dataset.read(Recipe(data=str(data / "train.csv"), modality="audio", options={"task": {"language": "xx"}}), body=whisper)


def test_a_bodys_own_ctc_layer_is_the_start(data, tmp_path, capsys):
    import transformers

    body = tiny_sound_backbone(tmp_path / "body")
    letters = ["<pad>", "|", *sorted(set("beecowdog".upper()))]
    config = transformers.Wav2Vec2Config.from_pretrained(body, vocab_size=len(letters), pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Wav2Vec2ForCTC(config).save_pretrained(body)
    store.write_json(body / "vocab.json", {letter: i for i, letter in enumerate(letters)})
    assert _adapt(data, tmp_path / "m", "--backbone", body, "--strategy", "full", "--set", "strategy.epochs=1", "--set", "task.beam=1") == 0
    assert json.loads((tmp_path / "m" / "head.json").read_text())["settings"]["kind"] == "linear"
    assert ctc_head.native(body, 2, (" ", "b", "e"), decoding={"beam": 1}) is not None
    assert (
        _adapt(data, tmp_path / "n", "--backbone", body, "--strategy", "linear_probe", "--set", "task.head=fresh", "--set", "task.epochs=1")
        == 0
    )
    assert json.loads((tmp_path / "n" / "head.json").read_text())["settings"]["kind"] == "convolutional"


def test_a_spectrogram_transformer_is_refused(data, tmp_path, capsys):
    import transformers

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_length": 64,
        "num_mel_bins": 32,
    }
    store.save_transformers(transformers.ASTModel(transformers.ASTConfig(**sizes)), tmp_path / "ast")
    transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(tmp_path / "ast")
    assert _adapt(data, tmp_path / "m", "--backbone", tmp_path / "ast", "--strategy", "linear_probe") == 2
    assert "mixes time with frequency" in capsys.readouterr().err
