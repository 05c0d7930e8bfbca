"""The modality audio: what it takes, what it refuses, and that bodies of every kind hear the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
import torch

import tiny_sound
from warmstart.core import registry
from warmstart.core.errors import BackboneNotFound, BadOption, ColumnNotFound, DataError
from warmstart.core.recipe import Recipe
from warmstart.engine import cut, dataset, extraction, network, sources, store
from warmstart.engine.examples import read_examples
from warmstart.engine.sound import Limit
from warmstart.samples import tiny_backbone, tiny_sound_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sound.folder(tmp_path_factory.mktemp("sounds"), 12)


@pytest.fixture
def part():
    return registry.create("modalities", "audio")


def _read(source, part, *, skip_bad=False, given=None):
    task = registry.create("tasks", "classification")
    how = {"task": task, "given": given or {}, "group": None, "skip_bad": skip_bad, "labelled": True}
    return read_examples(source, modality=part, **how)


def _files(folder):
    return sorted(folder.rglob("*.wav"))


# What it takes ------------------------------------------------------------------------------------------------------------------------


def test_every_form_of_a_data_set_is_the_same(folder, part, tmp_path):
    files = _files(folder)
    labels = [p.parent.name for p in files]
    relative = [str(p.relative_to(folder)) for p in files]
    rows = [f"{path},{label},s{i % 4}\n" for i, (path, label) in enumerate(zip(relative, labels, strict=True))]
    (folder / "table.csv").write_text("file,label,speaker\n" + "".join(rows))
    table = pa.table({"audio": [{"bytes": p.read_bytes(), "path": p.name} for p in files], "label": labels})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    waves = [soundfile.read(p, dtype="float32") for p in files]
    sources_of_them = [
        folder,
        str(folder / "table.csv"),
        tmp_path / "t.parquet",
        {"audio": [p.read_bytes() for p in files], "label": labels},
        {"audio": [{"array": w, "sampling_rate": r} for w, r in waves], "label": labels},
        {"audio": waves, "label": labels},
    ]
    found = [_read(source, part) for source in sources_of_them]
    for rows in found:
        assert rows.targets == labels
        assert [part.content(v) for v in rows.inputs] == [part.content(v) for v in found[0].inputs]
    for source in sources_of_them:
        assert sources.detect(source, {}, skip_bad=False)[0] == "audio"
    bare = registry.create("modalities", "audio", options={"rate": "8000"})
    assert part.content(_read({"audio": [w for w, _ in waves], "label": labels}, bare).inputs[3]) == part.content(found[0].inputs[3])


def test_a_hugging_face_dataset(folder, part):
    datasets = pytest.importorskip("datasets")
    files = _files(folder)
    data = datasets.Dataset.from_dict({"audio": [str(p) for p in files], "label": [p.parent.name for p in files]})
    rows = _read(data.cast_column("audio", datasets.Audio()), part)
    assert [part.content(v) for v in rows.inputs] == [part.content(v) for v in _read(folder, part).inputs]


def test_other_tables_are_not_sound(part):
    for columns in (
        {"text": ["a.wave of hope", "b"], "label": ["x", "y"]},
        {"file": ["gone.wav"], "label": ["x"]},
        {"vector": [np.zeros(8, np.float32)], "label": ["x"]},
        {"image": ["a.png"], "label": ["x"]},
    ):
        assert not part.matches(columns, folder=Path())
    with pytest.raises(ColumnNotFound, match="no column holds sound"):
        part.infer({"text": ["a"]}, {})
    with pytest.raises(ColumnNotFound, match="several columns hold sound"):
        part.infer({"left": ["a.wav"], "right": ["b.wav"]}, {})
    assert part.infer({"left": ["a.wav"], "file": ["b.wav"]}, {}) == {"audio": "file"}


def test_bad_files_are_named_or_counted(folder, part, tmp_path):
    copy = tiny_sound.folder(tmp_path / "data", 9)
    (copy / "up" / "bad.wav").write_bytes(b"no sound at all")
    (copy / "down" / "empty.wav").write_bytes(b"")
    soundfile.write(copy / "flat" / "quiet.wav", np.zeros(8_000), 8_000)
    with pytest.raises(DataError, match=r"row \d+: .*empty\.wav: empty file \(of 12 rows: 1 empty file, 1 not a sound file"):
        _read(copy, part)
    rows = _read(copy, part, skip_bad=True)
    assert rows.left_out == {"empty file": 1, "not a sound file that can be read": 1}
    assert "1 of 10 recordings are silent" in rows.notes
    read = dataset.read(Recipe(data=str(copy), modality="audio", skip_bad=True))
    assert "1 of 10 recordings are silent" in read.warnings


def test_options(part):
    with pytest.raises(BadOption, match="seconds or window"):
        registry.create("modalities", "audio", options={"seconds": "0"})
    short = registry.create("modalities", "audio", options={"seconds": "0.2", "window": "0.1"})
    value = short.load([((tiny_sound.wave("up", np.random.default_rng(0)), 8_000),)], folder=Path(), body=None)[0]
    assert short.extent(value) == pytest.approx(200)
    assert short.notes([value]) == ["1 of 1 recordings are longer than 0.2 s: of each, windows of 0.1 s spread over it were used"]
    with pytest.raises(BadOption, match="no option 'bands'"):
        part.featurizer({"bands": 3})


# Bodies -------------------------------------------------------------------------------------------------------------------------------


def _hf_body(name, place):
    """A tiny random body with its feature extractor."""
    import transformers

    tiny = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    ears = {
        "conv_dim": (8, 8),
        "conv_kernel": (10, 8),
        "conv_stride": (8, 8),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
    }
    ears["num_feat_extract_layers"] = 2
    torch.manual_seed(0)
    wave = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000)
    if name == "whisper":
        sizes = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_source_positions": 50}
        tokens = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        model = transformers.WhisperModel(transformers.WhisperConfig(**sizes, **heads, **tokens))
        extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    elif name == "ast":
        model = transformers.ASTModel(transformers.ASTConfig(**tiny, max_length=128, num_mel_bins=32))
        extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=128)
    else:
        kinds = {"hubert": transformers.HubertModel, "wavlm": transformers.WavLMModel}
        model, extractor = kinds[name](kinds[name].config_class(**tiny, **ears)), wave
    store.save_transformers(model.eval(), place)
    extractor.save_pretrained(str(place))
    return place


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("name", ["hubert", "wavlm", "whisper", "ast"])
def test_bodies_of_every_kind(name, part, tmp_path):
    place = _hf_body(name, tmp_path / name)
    random = np.random.default_rng(0)
    raw = [((tiny_sound.wave("up", random, seconds=s), 8_000),) for s in (0.2, 0.35, 0.5)]
    values = part.load(raw, folder=Path(), body=place)
    assert values[0][0].rate == extraction.rate_of(place)
    encoder, body = part.encoder(place, 256), store.load_body(place)
    encoded = encoder.encode(values)
    with torch.no_grad():
        together = network.pooled_states(body, cut.find_trunk(body), encoder.collate(encoded))
        alone = torch.cat([network.pooled_states(body, cut.find_trunk(body), encoder.collate([one])) for one in encoded])
    assert together.shape == (3, 3, 16)
    if name in ("whisper", "ast"):  # the others normalise over time, padding included
        assert torch.allclose(together, alone, atol=1e-5)
    store.save_transformers(body, tmp_path / "again")
    encoder.save(tmp_path / "again")
    again, twin = store.load_body(tmp_path / "again"), part.encoder(tmp_path / "again", 256)
    with torch.no_grad():
        assert torch.equal(network.pooled_states(again, cut.find_trunk(again), twin.collate(twin.encode(values))), together)
    from transformers import AutoModel

    opened = dict(AutoModel.from_pretrained(tmp_path / "again").state_dict())
    prefix = "encoder." if name == "whisper" else ""
    assert all(torch.equal(opened[prefix + key], value) for key, value in body.state_dict().items())


def test_waves_are_scaled_as_the_feature_extractor_says(part, tmp_path):
    from transformers import AutoFeatureExtractor

    place = tiny_sound_backbone(tmp_path)
    wave = tiny_sound.wave("down", np.random.default_rng(1))
    encoder = part.encoder(place, 256)
    ours = encoder.encode(part.load([((wave, 8_000),)], folder=Path(), body=place))[0]["input_values"]
    theirs = AutoFeatureExtractor.from_pretrained(place)(wave, sampling_rate=8_000, return_tensors="np")["input_values"][0]
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_click_is_long_enough_for_the_convolutions(part, tmp_path):
    place = tiny_sound_backbone(tmp_path)
    encoder, body = part.encoder(place, 256), store.load_body(place)
    encoded = encoder.encode(part.load([((np.ones(3, np.float32), 8_000),)], folder=Path(), body=place))
    with torch.no_grad():
        assert body(**encoder.collate(encoded)).last_hidden_state.shape[1] >= 1


def test_a_folder_that_says_nothing_of_sound(part, tmp_path):
    with pytest.raises(BackboneNotFound, match="no feature extractor for sound"):
        part.encoder(tiny_backbone(tmp_path / "bert"), 256)


def test_frames_bound_the_size(part, tmp_path):
    encoder = part.encoder(tiny_sound_backbone(tmp_path), 256)
    long = encoder.encode(part.load([((np.random.default_rng(0).standard_normal(8_000 * 90), 8_000),)], folder=Path(), body=tmp_path))
    assert encoder.size(long[0]) == encoder.max_length == 8_000 * Limit().seconds / 64
