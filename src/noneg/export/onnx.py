"""An ONNX file: uint8 pictures of any size in, features out, any number of them at a time."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.export.check import check
from noneg.export.graph import Graph, exported
from noneg.files import whole_or_not_at_all

INPUT = "images"


def export_onnx(encoder: Encoder | Classifier, path: str | os.PathLike[str]) -> float:
    """Write one file, and compare what ONNX Runtime computes from it with the encoder.

    Input "images": uint8 [batch, channels, side, side]; output "features": float32 [batch, D], or
    of a classifier "probabilities" [batch, K].
    Pictures are resized and normalized within the graph; those that are not square would be
    stretched, so crop them first. The metadata has `encoder.json`,
    and the names of the classes.

    Args:
        encoder: the encoder, or a classifier.
        path: the file; an older one is replaced.

    Returns:
        The largest error of an output, relative to their root mean square.

    Raises:
        NonegError: the packages are not installed, the network cannot be exported, the result
            differs from the encoder's, or the file cannot be written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError as error:
        raise NonegError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'noneg[onnx]'"
        ) from None
    source = exported(encoder)
    info = source.info
    graph = Graph(source.module, info).eval()
    # Two images: an example of one would fix the batch to one.
    example = torch.zeros(2, info.channels, info.size + 2, info.size + 2, dtype=torch.uint8)
    side = torch.export.Dim("side", min=2)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1), 2: side, 3: side},),
                input_names=[INPUT],
                output_names=[source.output],
                verbose=False,
            )
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise NonegError(
            f"the backbone {info.backbone} cannot be exported to ONNX ({reason[0][:200]}): use "
            "another format"
        ) from error
    assert program is not None
    for name, value in source.metadata.items():
        program.model.metadata_props[name] = json.dumps(value)
    with whole_or_not_at_all(Path(path)) as unfinished:
        with _quiet():
            program.save(os.fspath(unfinished), external_data=False)
        session = onnxruntime.InferenceSession(
            os.fspath(unfinished), providers=["CPUExecutionProvider"]
        )

        def run(images: Tensor) -> Tensor:
            (features,) = session.run([source.output], {INPUT: images.numpy()})
            assert isinstance(features, np.ndarray)
            return torch.from_numpy(features)

        return check(source, run, "ONNX Runtime")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps, logs, and warns of its own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
