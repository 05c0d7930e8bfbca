"""The only room that opens and writes weight files: safetensors, atomic, hashed. Never a pickle, never remote code."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from warmstart.core.errors import BackboneNotFound, DamagedModel, DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        DiskFull: No space left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in FULL or any(os.strerror(code) in str(error) for code in FULL):  # safetensors gives no number
            raise DiskFull(f"no space left while writing {path}", do="free some space and run the same command again") from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor | NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file, atomically."""
    plain = {
        k: (torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v.detach().contiguous()) for k, v in tensors.items()
    }
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(plain, temporary, metadata={"format": "pt", **(metadata or {})})
        temporary.chmod(mode)  # safetensors keeps what it writes to its owner


def tensor_names(path: Path) -> list[str]:
    """What the tensors in a safetensors file are called, of which none is read.

    Raises:
        DamagedModel: The file is not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file.

    Raises:
        DamagedModel: The file is missing or is not whole.
    """
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None
    return found


def _damaged(path: Path, error: Exception) -> DamagedModel:
    return DamagedModel(f"{path} cannot be opened: {error}", "a whole safetensors file", "train or copy the model again")


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    if source.resolve() != target.resolve():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def fingerprint(folder: Path) -> str:
    """Hash of a backbone's weights and configuration: equal bodies have equal fingerprints, wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.onnx"))]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def load_body(folder: Path) -> nn.Module:
    """The pre-trained body in ``folder`` in float32: ``AutoModel``, or the encoder alone where the model has a decoder too, or the
    tower for images alone where it has one for text too.

    A ``model_type`` that begins with ``warmstart-`` is one of our own (``engine.bodies``).

    Raises:
        BackboneNotFound: transformers cannot open the folder safely.
    """
    from warmstart.engine import bodies

    config = read_config(folder)
    if str(config.get("model_type", "")).startswith(bodies.PREFIX):
        return bodies.load(folder, config)
    return _load_transformers(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """What is in ``config.json``; empty where it cannot be read."""
    return read_object(folder / "config.json")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _opening(given: str, expected: str, do: str) -> Iterator[None]:
    """Whatever transformers says while it opens a folder, as one of our errors."""
    quiet_transformers()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneNotFound(f"{given}: {reason}", expected, do) from None


def _load_transformers(folder: Path) -> nn.Module:
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    expected = "a folder in Hugging Face format with config.json and *.safetensors"
    with _opening(f"the backbone in {folder} cannot be opened", expected, "see: warmstart models"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tower = _image_tower(config)
        config = config if tower is None else config.vision_config
        both = bool(getattr(config, "is_encoder_decoder", False))
        alone = both and type(config) in AutoModelForTextEncoding._model_mapping
        body = (tower or (AutoModelForTextEncoding if alone else AutoModel)).from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    # Whisper: transformers has no class of the encoder alone that opens the files of both. DETR's decoder looks at an image too.
    if both and not alone and getattr(body, "main_input_name", "") != "pixel_values":
        whole = type(body).__name__
        body = body.get_encoder()
        body.saved_as = whole
    assert isinstance(body, nn.Module)  # noqa: S101 - narrows the untyped return value
    return _aligned(body).eval()


def _image_tower(config: Any) -> Any:
    """The class of the tower for images of a model that has one for text too (CLIP, SigLIP); None of any other model."""
    from transformers import AutoModel

    whole, seen = (AutoModel._model_mapping.get(type(c), None) for c in (config, getattr(config, "vision_config", None)))
    return seen if hasattr(whole, "get_text_features") and hasattr(whole, "get_image_features") else None


def is_causal(folder: Path) -> bool:
    """Whether ``folder`` holds a causal language model, by the architecture that its ``config.json`` names."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return bool(set(read_config(folder).get("architectures") or []) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))


def load_causal(folder: Path) -> nn.Module:
    """The causal language model in ``folder`` in float32, with its output embedding.

    Raises:
        BackboneNotFound: There is none, or it cannot be opened safely.
    """
    from transformers import AutoModelForCausalLM

    expected = "a causal language model in Hugging Face format, with config.json and *.safetensors"
    with _opening(f"no causal language model can be opened in {folder}", expected, "see: warmstart models"):
        if not is_causal(folder):  # transformers would give a masked model a head at random
            raise ValueError("its config.json names no causal architecture")
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    assert isinstance(model, nn.Module)  # noqa: S101 - narrows the untyped return value
    return _aligned(model).eval()


def load_masked(folder: Path) -> tuple[nn.Module, set[str]]:
    """The masked language model in ``folder`` in float32 (of BERT with its second head too), and the names that were not in its files.

    Raises:
        BackboneNotFound: transformers cannot open the folder safely, or knows no masked model of this architecture.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM, BertForPreTraining

    expected, do = "a folder of a BERT-like model in Hugging Face format", "see: warmstart models; for a causal model use --objective gpt"
    with _opening(f"the masked language model in {folder} cannot be opened", expected, do):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        auto = BertForPreTraining if config.model_type == "bert" else AutoModelForMaskedLM
        model, told = auto.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    assert isinstance(model, nn.Module)  # noqa: S101 - narrows the untyped return value
    return _aligned(model), set(told["missing_keys"])


NATIVE = {
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
    "audio": "AutoModelForAudioClassification",
}
"""The classifier of a modality in transformers."""


def with_native_head(body: nn.Module, labels: list[str], problem_type: str, *, modality: str = "text") -> nn.Module:
    """The architecture's own classifier around ``body``, with the body's weights and a fresh head.

    Raises:
        BackboneNotFound: The architecture has no classifier for this modality.
    """
    import transformers

    auto = NATIVE.get(modality, "")
    if not hasattr(type(body.config), "from_dict") or not auto:
        raise _no_classifier(body, auto)
    config: Any = type(body.config).from_dict(body.config.to_dict())  # type: ignore[operator, union-attr]
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = problem_type
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = config.eos_token_id if isinstance(config.eos_token_id, int) else 0
    try:
        whole = getattr(transformers, auto).from_config(config, dtype=torch.float32)
    except ValueError:
        raise _no_classifier(body, auto) from None
    inner = getattr(whole, whole.base_model_prefix)
    # The classifier may build its body without parts the plain body has (RoBERTa's pooler), never the other way round.
    missing, _ = inner.load_state_dict(body.state_dict(), strict=False)
    if missing:
        raise BackboneNotFound(f"the body in {type(whole).__name__} has weights that the backbone lacks: {', '.join(missing[:3])}")
    assert isinstance(whole, nn.Module)  # noqa: S101 - narrows the untyped return value
    return whole.eval()


def _no_classifier(body: nn.Module, auto: str) -> BackboneNotFound:
    kind = {"AutoModelForSequenceClassification": "sequence "}.get(auto, "")
    return BackboneNotFound(
        f"{type(body).__name__} has no {kind}classifier of its own in transformers",
        f"an architecture that {auto or 'transformers'} knows",
        "use --set strategy.head=pooled",
    )


def save_transformers(model: nn.Module, folder: Path) -> None:
    """``model.safetensors`` and ``config.json`` as transformers writes them; a body of our own in its own form."""
    from warmstart.engine import bodies

    if bodies.is_own(model):
        bodies.save(model, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    quiet_transformers()
    if hasattr(model, "saved_as"):
        _save_encoder(model, folder)
        return
    with replacing(folder / "config.json"):  # only for its reading of a full disk
        model.save_pretrained(folder, safe_serialization=True, max_shard_size="1000GB")  # type: ignore[operator]
        (folder / f".config.json.{os.getpid()}.tmp").write_bytes((folder / "config.json").read_bytes())
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # as in write_tensors


def _save_encoder(model: Any, folder: Path) -> None:
    """The encoder of a model that has a decoder too, under the names that it has there: ``AutoModel`` opens it, with a fresh decoder."""
    write_tensors(folder / "model.safetensors", {f"encoder.{name}": value.cpu() for name, value in model.state_dict().items()})
    write_json(folder / "config.json", {**model.config.to_dict(), "architectures": [model.saved_as]})


def load_native(folder: Path) -> nn.Module:
    """The classifier that ``save_transformers`` wrote, in float32; of which modality says its ``config.json``."""
    import transformers

    quiet_transformers()
    architecture = str((read_config(folder).get("architectures") or [""])[0])
    auto = next((name for name in NATIVE.values() if architecture in _classifiers(name)), NATIVE["text"])
    model = getattr(transformers, auto).from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    assert isinstance(model, nn.Module)  # noqa: S101 - narrows the untyped return value
    return _aligned(model).eval()


def _classifiers(auto: str) -> set[str]:
    """Names of the classes that an auto class of transformers knows: Wav2Vec2's for sound is called ``...ForSequenceClassification``."""
    import transformers.models.auto.modeling_auto as known

    listed = {"AutoModelForSequenceClassification": "SEQUENCE", "AutoModelForImageClassification": "IMAGE"}.get(auto, "AUDIO")
    names: Any = getattr(known, f"MODEL_FOR_{listed}_CLASSIFICATION_MAPPING_NAMES")
    return {name for names_of in names.values() for name in ([names_of] if isinstance(names_of, str) else names_of)}


def _aligned(model: nn.Module) -> nn.Module:
    """The model with its weights in memory of their own: mapped from a file they begin at any byte, by which kernels round differently."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def quiet_transformers() -> None:
    """Keep transformers' load reports and progress bars away from the user's terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
