"""OpenVINO's pair of files: `.xml` for the graph, `.bin` beside it for the weights."""

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder
from noneg.errors import NonegError, printable
from noneg.export.check import check
from noneg.export.graph import exported
from noneg.export.onnx import INPUT, export_onnx
from noneg.files import whole_or_not_at_all


def export_openvino(encoder: Encoder | Classifier, path: str | os.PathLike[str]) -> float:
    """Convert the ONNX graph, and compare what OpenVINO computes from it with the encoder.

    Inputs and outputs are those of `noneg.export.onnx.export_onnx`. Weights stay float32. OpenVINO
    computes in bfloat16 on processors that have it, unless INFERENCE_PRECISION_HINT is "f32"; the
    comparison is in float32.

    Args:
        encoder: the encoder, or a classifier.
        path: the `.xml` file; older files are replaced.

    Returns:
        The largest error of an output, relative to their root mean square.

    Raises:
        NonegError: OpenVINO is not installed, the name does not end in .xml, the network cannot be
            exported, the result differs from the encoder's, or a file cannot be written.
    """
    try:
        import openvino
    except ImportError:
        raise NonegError(
            "OpenVINO is not installed: pip install 'noneg[openvino]', or use --format onnx"
        ) from None
    path = Path(path)
    if path.suffix != ".xml":
        raise NonegError(
            f"OpenVINO reads a graph from an .xml file, but --out is {printable(str(path))}: give "
            f"{printable(path.stem)}.xml"
        )
    source = exported(encoder)
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "encoder.onnx"
        export_onnx(encoder, onnx)
        try:
            model = openvino.convert_model(onnx)
            written = Path(folder) / "encoder.xml"
            openvino.save_model(model, written, compress_to_fp16=False)
            compiled = openvino.Core().compile_model(
                written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise NonegError(
                f"OpenVINO cannot convert the backbone {source.info.backbone} "
                f"({reason[0][:200]}): use another format"
            ) from error

        def run(images: Tensor) -> Tensor:
            found: Tensor = torch.from_numpy(
                compiled({INPUT: images.numpy()})[source.output].copy()
            )
            return found

        largest = check(source, run, "OpenVINO")
        # The weights come first, being the inner one: a graph without them cannot be loaded.
        with (
            whole_or_not_at_all(path) as graph,
            whole_or_not_at_all(path.with_suffix(".bin")) as weights,
        ):
            graph.write_bytes(written.read_bytes())
            weights.write_bytes(written.with_suffix(".bin").read_bytes())
    return largest
