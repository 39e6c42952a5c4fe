"""`noneg export`: the encoder, or a classifier, in the format of other tools."""

from pathlib import Path

from noneg.classifier.classifier import INFO, Classifier, load_classifier
from noneg.encoder import Encoder, load
from noneg.errors import printable
from noneg.files import check_can_be_written
from noneg.records.directory import RunDirectory


def run(*, run: str, backbone: str | None, format: str, out: Path, license: str | None) -> None:
    """Write the encoder, and print how far the other tool's features are from the encoder's.

    Raises:
        NonegError: there is no encoder, or it cannot be written in this format, or there.
    """
    check_can_be_written(out, is_directory=format == "timm")
    encoder: Encoder | Classifier = load(run, backbone=backbone)
    if (Path(run) / INFO).is_file():
        encoder = load_classifier(run, backbone=backbone)
    if format == "onnx":
        from noneg.export.onnx import export_onnx

        error = export_onnx(encoder, out)
    elif format == "torch":
        from noneg.export.torch_program import export_torch

        error = export_torch(encoder, out)
    elif format == "openvino":
        from noneg.export.openvino import export_openvino

        error = export_openvino(encoder, out)
    else:
        from noneg.export.timm_directory import export_timm

        verdict = RunDirectory(Path(run)).read_verdict()
        error = export_timm(encoder, out, license=license, verdict=verdict)
    print(f"written  {printable(str(out))}; its output differs by at most {error:.1e} of its size")
