"""Tiny random models of many architectures, built from their configs: real classes, no downloads, a few thousand parameters each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf
from torch import Tensor, nn

VOCABULARY, WIDTH, LAYERS = 99, 32, 4
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large, so that every block matters to the output
}


def _deberta() -> nn.Module:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
    return hf.DebertaV2Model(hf.DebertaV2Config(**_SIZES, **relative, conv_kernel_size=3))


def _distilbert() -> nn.Module:
    sizes = {"dim": WIDTH, "hidden_dim": 48, "n_heads": 4, "n_layers": LAYERS, "max_position_embeddings": 64}
    return hf.DistilBertModel(hf.DistilBertConfig(vocab_size=VOCABULARY, initializer_range=0.3, **sizes))


def _modernbert() -> nn.Module:
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return hf.ModernBertModel(hf.ModernBertConfig(**_SIZES, **special, local_attention=4))


def _gpt2() -> nn.Module:
    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    return hf.GPT2Model(hf.GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **sizes))


def _t5() -> nn.Module:
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS, "num_heads": 4, "initializer_factor": 3.0}
    return hf.T5EncoderModel(hf.T5Config(vocab_size=VOCABULARY, **sizes))


TEXT_MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**_SIZES)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**_SIZES)),
    "distilbert": _distilbert,
    "electra": lambda: hf.ElectraModel(hf.ElectraConfig(**_SIZES, embedding_size=16)),
    "mpnet": lambda: hf.MPNetModel(hf.MPNetConfig(**_SIZES)),
    "deberta_v2": _deberta,
    "modernbert": _modernbert,
    "albert": lambda: hf.AlbertModel(hf.AlbertConfig(**_SIZES, embedding_size=16)),
    "gpt2": _gpt2,
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**_SIZES, num_key_value_heads=2)),
    "t5_encoder": _t5,
}


def _resnet() -> nn.Module:
    return hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32], depths=[1, 1, 1]))


def _convnext() -> nn.Module:
    return hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 16, 24], depths=[1, 1, 1], num_stages=3, patch_size=2))


def _vit() -> nn.Module:
    sizes = {key: value for key, value in _SIZES.items() if key not in ("vocab_size", "max_position_embeddings")}
    return hf.ViTModel(hf.ViTConfig(**sizes, image_size=16, patch_size=8))


def _swin() -> nn.Module:
    return hf.SwinModel(hf.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=2))


def _patches() -> dict[str, object]:
    return {key: value for key, value in _SIZES.items() if key not in ("vocab_size", "max_position_embeddings")} | {
        "image_size": 16,
        "patch_size": 8,
    }


def _dinov2() -> nn.Module:
    return hf.Dinov2Model(hf.Dinov2Config(**_patches(), layerscale_value=0.5))


def _beit() -> nn.Module:
    return hf.BeitModel(hf.BeitConfig(**_patches(), layer_scale_init_value=0.5, use_relative_position_bias=True))


def _mobilenet_v1() -> nn.Module:
    return hf.MobileNetV1Model(hf.MobileNetV1Config(depth_multiplier=0.1, min_depth=4, image_size=32))


def _efficientnet() -> nn.Module:
    sizes = {
        "width_coefficient": 0.25,
        "depth_coefficient": 0.3,
        "hidden_dim": 320,
        "image_size": 32,
        "kernel_sizes": [3] * 7,
        "strides": [1, 2, 1, 1, 1, 1, 1],
    }
    return hf.EfficientNetModel(hf.EfficientNetConfig(**sizes))


IMAGE_MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": _vit,
    "resnet": _resnet,
    "convnext": _convnext,
    "mobilenet_v2": lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.1, min_depth=4, image_size=32)),
    "swin": _swin,
    "deit": lambda: hf.DeiTModel(hf.DeiTConfig(**_patches())),
    "dinov2": _dinov2,
    "beit": _beit,
    "mobilenet_v1": _mobilenet_v1,
    "efficientnet": _efficientnet,
    "clip_vision": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**_patches(), projection_dim=16)),
    "siglip_vision": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**_patches())),
}


def _ears() -> dict[str, object]:
    sizes = {key: value for key, value in _SIZES.items() if key != "max_position_embeddings"}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embeddings": 8}
    return {**sizes, **convolutions, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}


def _whisper() -> nn.Module:
    sizes = {"d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "init_std": 0.3}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "vocab_size": VOCABULARY}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return hf.WhisperModel(
        hf.WhisperConfig(**sizes, **decoder, **ends, num_mel_bins=8, max_source_positions=20, max_target_positions=8)
    ).get_encoder()


def _ast() -> nn.Module:
    sizes = {key: value for key, value in _SIZES.items() if key not in ("vocab_size", "max_position_embeddings")}
    return hf.ASTModel(hf.ASTConfig(**sizes, patch_size=8, frequency_stride=8, time_stride=8, max_length=40, num_mel_bins=8))


SOUND_MODELS: dict[str, Callable[[], nn.Module]] = {
    "wav2vec2": lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**_ears())),
    "hubert": lambda: hf.HubertModel(hf.HubertConfig(**_ears())),
    "wavlm": lambda: hf.WavLMModel(hf.WavLMConfig(**_ears())),
    "whisper": _whisper,
    "ast": _ast,
}


def tiny_model(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """The model of that name with seeded random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return (TEXT_MODELS | IMAGE_MODELS | SOUND_MODELS)[name]().to(dtype).eval()


def tiny_batch(name: str, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Three different rows: texts and sounds of different lengths with their masks, or images."""
    generator = torch.Generator().manual_seed(seed)
    if name in IMAGE_MODELS:
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator).to(dtype)}
    if name in ("whisper", "ast"):
        shape = (3, 8, 40) if name == "whisper" else (3, 40, 8)
        return {"input_features" if name == "whisper" else "input_values": torch.randn(shape, generator=generator).to(dtype)}
    lengths = torch.tensor([11, 5, 8]) + seed % 3
    if name in SOUND_MODELS:
        lengths = lengths * 40
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()  # (B, T)
    if name in SOUND_MODELS:
        return {"input_values": (torch.randn(mask.shape, generator=generator) * mask).to(dtype), "attention_mask": mask}
    tokens = torch.randint(3, VOCABULARY, mask.shape, generator=generator)
    return {"input_ids": tokens * mask, "attention_mask": mask}
