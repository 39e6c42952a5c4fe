"""`noneg embed`: write one row per image to a table that other tools can read."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noneg.collection.embedded import embed_collection
from noneg.encoder import Encoder, Precision, load
from noneg.errors import NonegError, printable
from noneg.export.browsable import write_browsable
from noneg.export.parquet import Written, write_parquet
from noneg.export.parts import embed_parts
from noneg.export.processes import own_device, run_in_processes, share_by_torchrun
from noneg.files import check_can_be_written
from noneg.images import ImageSource, find_source
from noneg.images.source import evenly_spaced, unreadable_error
from noneg.images.threads import read_readable

LARGEST_DIFFERENCE = 0.02
"""Of embeddings in bfloat16 from those in float32, as a share of their length."""


@dataclass(frozen=True)
class _Wanted:
    """What the command line says, for every process alike."""

    run: str
    backbone: str | None
    data: str
    out: Path
    batch_size: int
    device: str
    precision: Precision
    strict: bool
    pictures: bool
    in_parts: bool


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    out: Path,
    batch_size: int,
    device: str,
    devices: int,
    precision: Precision,
    strict: bool,
    pictures: bool,
) -> None:
    """Embed images with a run's encoder, and print their number and which ones were skipped.

    With `pictures`, the table also has thumbnails, a map and neighbors. A name without a suffix is
    a directory of parts, which several processes can write.

    Raises:
        NonegError: there is no encoder, the data cannot be read, the file cannot be written, or one
            of several processes failed.
    """
    in_parts = out.suffix == "" or out.is_dir()
    _refuse_contradictions(out, in_parts, devices, share_by_torchrun().processes, pictures)
    if not in_parts:
        check_can_be_written(out)
    wanted = _Wanted(
        run, backbone, data, out, batch_size, device, precision, strict, pictures, in_parts
    )
    try:
        if devices > 1:
            run_in_processes(devices, _embed, wanted)
        else:
            _embed(wanted)
    except KeyboardInterrupt:
        kept = "Complete parts are kept: the same command makes the rest." if in_parts else ""
        raise KeyboardInterrupt(kept) from None


def _embed(wanted: _Wanted) -> None:
    encoder = load(wanted.run, backbone=wanted.backbone)
    share = share_by_torchrun()
    source = find_source(wanted.data)
    if wanted.precision != "float32":
        encoder = encoder.in_precision(wanted.precision)
        difference = _difference(encoder, source)
        if share.process == 0:
            print(f"{wanted.precision} changes embeddings by {difference:.2%} of their length")
    written: Written | None
    if wanted.in_parts:
        # None but for the process that ends last.
        written = embed_parts(
            wanted.out,
            encoder,
            source,
            share=share,
            batch_size=wanted.batch_size,
            device=own_device(wanted.device),
            strict=wanted.strict,
            progress=True,
        )
    elif wanted.pictures:
        collection = embed_collection(
            encoder, wanted.data, source=source, device=wanted.device, progress=True
        )
        if wanted.strict and collection.skipped:
            raise unreadable_error(collection.source, collection.skipped[0])
        write_browsable(wanted.out, collection)
        written = Written(len(collection), collection.skipped)
    else:
        written = write_parquet(
            wanted.out,
            encoder,
            source,
            batch_size=wanted.batch_size,
            device=wanted.device,
            strict=wanted.strict,
            progress=True,
        )
    if written is not None:
        where = printable(str(wanted.out))
        print(f"{written.rows} embeddings of {encoder.info.features} numbers written to {where}")
        for image in written.skipped:
            print(f"skipped {printable(image.name)}: {printable(image.reason)}", file=sys.stderr)


def _refuse_contradictions(
    out: Path, in_parts: bool, devices: int, processes: int, pictures: bool
) -> None:
    if devices < 1:
        raise NonegError(f"--devices {devices}: give at least 1.")
    if devices > 1 and processes > 1:
        raise NonegError("torchrun has started the processes: leave --devices out.")
    if max(devices, processes) > 1 and not in_parts:
        raise NonegError(
            f"Several processes write a directory of parts, but --out {printable(str(out))} names "
            f"one file: give a directory, such as {printable(str(out.with_suffix('')))}."
        )
    if pictures and in_parts:
        raise NonegError(
            "--pictures needs all images in one table, for the map and the neighbors: give --out "
            "FILE.parquet, and no --devices."
        )


def _difference(encoder: Encoder, source: ImageSource) -> float:
    """How far some embeddings are from those in float32, as a share of their length.

    Raises:
        NonegError: too far.
    """
    info = encoder.info
    pixels = np.stack(
        read_readable(
            source,
            evenly_spaced(len(source)),
            lambda index: source.read(index, info.channels, info.stored_size),
        )
    )
    exact = encoder.in_precision("float32").embed_pixels(pixels)
    length = float(np.linalg.norm(exact))
    difference = float(np.linalg.norm(encoder.embed_pixels(pixels) - exact)) / max(length, 1e-12)
    if not difference <= LARGEST_DIFFERENCE:
        raise NonegError(
            f"--precision {encoder.precision} changes this encoder's embeddings by "
            f"{difference:.1%} of their length, more than {LARGEST_DIFFERENCE:.0%}: leave it out."
        )
    return difference
