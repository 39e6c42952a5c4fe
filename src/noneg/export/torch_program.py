"""A file for `torch.export.load`: the network as a graph of torch's operations, without noneg."""

import io
import os
import warnings

import torch

from noneg.classifier.classifier import Classifier
from noneg.encoder import Encoder
from noneg.errors import NonegError
from noneg.export.check import check
from noneg.export.graph import Graph, exported
from noneg.files import whole_or_not_at_all


def export_torch(encoder: Encoder | Classifier, path: str | os.PathLike[str]) -> float:
    """Write a file, load it again, and compare its outputs with noneg's.

    `torch.export.load(path).module()(images)` takes uint8 [batch, channels, side, side].

    Args:
        encoder: the encoder, or a classifier, whose probabilities are the output.
        path: the file; an older one is replaced.

    Returns:
        The largest error of an output, relative to their root mean square.

    Raises:
        NonegError: the network cannot be exported, the result differs, or the file cannot be
            written.
    """
    source = exported(encoder)
    info = source.info
    graph = Graph(source.module, info).eval()
    example = torch.zeros(2, info.channels, info.size + 2, info.size + 2, dtype=torch.uint8)
    side = torch.export.Dim("side", min=2)
    sizes = {0: torch.export.Dim("batch", min=1), 2: side, 3: side}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad():
                program = torch.export.export(graph, (example,), dynamic_shapes=(sizes,))
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise NonegError(
                f"the backbone {info.backbone} cannot be exported ({reason[0][:200]}): use another "
                "format"
            ) from error
        # In memory, because torch aborts the process if a write fails.
        archive = io.BytesIO()
        torch.export.save(program, archive)
        with whole_or_not_at_all(path) as unfinished:
            unfinished.write_bytes(archive.getbuffer())
            with unfinished.open("rb") as file:
                loaded = torch.export.load(file).module()
            largest = check(source, loaded, "torch.export")
    return largest
