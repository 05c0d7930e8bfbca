"""What ``store`` is for safetensors, for the files of ONNX and Keras: they are opened here alone, and no code of theirs is run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from warmstart.core.errors import BackboneNotFound, MissingLibrary
from warmstart.core.words import shortened
from warmstart.engine.store import replacing


def open_onnx(path: Path) -> Any:
    """A session of ONNX Runtime on the CPU for a file, with as many threads as torch has.

    Raises:
        MissingLibrary: ONNX Runtime is not installed.
        BackboneNotFound: It cannot open the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingLibrary(f"{path} needs ONNX Runtime", "the package onnxruntime", "run: pip install 'warmstart[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, which share no base of their own
        reason = shortened(str(error))
        raise BackboneNotFound(f"{path} cannot be opened: {reason}", "a whole ONNX file of standard operators", "export it again") from None


def read_onnx(path: Path) -> Any:
    """The graph in an ONNX file with its weights, also where they lie in files beside it.

    Raises:
        MissingLibrary: The package onnx is not installed.
        BackboneNotFound: The file is not whole.
    """
    try:
        import onnx
    except ImportError:
        raise MissingLibrary(f"{path} needs the package onnx", "onnx and onnxruntime", "run: pip install 'warmstart[onnx]'") from None
    try:
        return onnx.load(str(path))
    except Exception as error:  # of protobuf's own kinds
        reason = shortened(str(error))
        raise BackboneNotFound(f"{path} cannot be read: {reason}", "a whole ONNX file", "export or copy it again") from None


def write_onnx(path: Path, graph: Any) -> None:
    """Write a graph as one file, atomically."""
    import onnx

    with replacing(path) as temporary:
        onnx.save(graph, str(temporary))


def keras() -> Any:
    """The package keras on its torch backend.

    Raises:
        MissingLibrary: It is not installed, or was imported with another backend.
    """
    do = "run: pip install 'warmstart[keras]'"
    os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is first imported
    try:
        import keras as found
    except ImportError as error:
        raise MissingLibrary(f"Keras cannot be imported ({error})", "keras 3 with its torch backend", do) from None
    if found.config.backend() != "torch":
        raise MissingLibrary(f"Keras runs on {found.config.backend()} here", "its torch backend", "set KERAS_BACKEND=torch")
    return found


def load_keras(path: Path) -> Any:
    """The Keras model in a ``.keras`` file, in safe mode: no code from the file is run.

    Raises:
        BackboneNotFound: It is not whole, or would run code.
    """
    known = keras()
    try:
        return known.models.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # whatever the classes that it names raise
        reason = shortened(str(error))
        raise BackboneNotFound(f"{path} cannot be opened: {reason}", "a whole .keras file of Keras's own layers", "save it again") from None


def load_keras_weights(path: Path, models: Iterable[Any]) -> Any:
    """The first of the Keras models that the weights in an HDF5 file fit, with them.

    Raises:
        BackboneNotFound: They fit none.
    """
    reason = ""
    for model in models:
        try:
            model.load_weights(str(path))
        except Exception as error:  # of Keras, h5py and the layers
            reason = shortened(str(error))
        else:
            return model
    raise BackboneNotFound(f"{path} does not fit: {reason}", "weights of this architecture", "name the right file, or the right one")
