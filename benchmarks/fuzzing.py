"""Damaged files, and a process with limits that reads them. Used by reliability.py and the tests.

The process has a limit to memory, which the kernel keeps, and to time, which its parent keeps. It
makes the files itself, from a seed, so that each can be made again. A file may be read, or refused
with one sentence; any other exception, a signal, silence, and files in other places are faults.

    python benchmarks/fuzzing.py images 10000        prints what happened to each file
    python benchmarks/fuzzing.py artifacts 1 1234    only number 1234
"""

import io
import json
import os
import queue
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

MEMORY = 2 * 2**30
"""Bytes that reading may take, besides the program itself."""

PATIENCE = 60
"""Seconds for one file."""


@dataclass
class Outcome:
    """How many files were tried, and what happened to them."""

    files: int = 0
    read: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)


def mutate(content: bytes, others: Sequence[bytes], generator: random.Random) -> bytes:
    """A few random changes of a file: bits, numbers, pieces that are cut, doubled or swapped."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = generator.randrange(len(changed))
        match generator.randrange(9):
            case 0:
                changed[at] ^= 1 << generator.randrange(8)
            case 1:
                changed[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                extreme = generator.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65536, 70000))
                changed[at : at + 4] = struct.pack(generator.choice("<>") + "I", extreme)
            case 3:
                del changed[at:]
            case 4:
                del changed[at : at + generator.randrange(1, 64)]
            case 5:
                changed[at:at] = changed[at : at + generator.randrange(1, 64)]
            case 6:
                changed[at:at] = generator.randbytes(generator.randrange(1, 64))
            case 7:
                other = generator.choice(others)
                changed[at:] = other[generator.randrange(len(other) or 1) :]
            case 8:
                other = generator.choice(others)
                start = generator.randrange(len(other) or 1)
                piece = other[start : start + generator.randrange(1, 256)]
                changed[at : at + len(piece)] = piece
    return bytes(changed)


def with_right_checksums(png: bytes) -> bytes:
    """A PNG whose checksums fit what it holds now, so that a decoder reads on."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return png
    whole, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        whole += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(whole)


def pictures() -> dict[str, bytes]:
    """Small files of every format, color mode and compression that noneg reads."""
    generator = np.random.default_rng(0)
    smooth = np.cumsum(generator.integers(-3, 4, (40, 48, 4)), axis=1) % 256
    color = Image.fromarray(smooth.astype(np.uint8), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [color.convert("RGB").rotate(90 * turn) for turn in range(3)]
    animated = {"save_all": True, "append_images": frames[1:]}
    found: dict[str, bytes] = {}

    def add(kind: str, mode: str, note: str = "", **options: object) -> None:
        file = io.BytesIO()
        picture = color.convert("I").convert("I;16") if mode == "I;16" else color.convert(mode)
        (frames[0] if options.get("save_all") else picture).save(file, kind, **options)
        found[f"{mode.replace(';', '')}{note}.{kind.lower()}"] = file.getvalue()

    for mode in ("L", "RGB", "CMYK"):
        add("JPEG", mode)
    add("JPEG", "RGB", "-progressive", progressive=True, exif=exif, comment=b"a comment")
    add("JPEG", "RGB", "-sampled", subsampling=2, quality=30, restart_marker_blocks=2)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        add("PNG", mode)
    add("PNG", "RGB", "-animated", **animated)
    for mode in ("RGB", "RGBA"):
        add("WEBP", mode)
        add("WEBP", mode, "-lossless", lossless=True)
    add("WEBP", "RGB", "-animated", **animated)
    for mode in ("1", "L", "P", "RGB"):
        add("BMP", mode)
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "F"):
        add("TIFF", mode)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add("TIFF", "RGB", f"-{compression}", compression=compression)
    for compression in ("group3", "group4"):
        add("TIFF", "1", f"-{compression}", compression=compression)
    add("TIFF", "RGB", "-animated", **animated)
    add("GIF", "P")
    add("GIF", "P", "-animated", **animated)
    return found


def arrays() -> dict[str, bytes]:
    """Small files of arrays."""
    found = {}
    for name, dtype in (("a.npy", "uint8"), ("b.npy", ">u2")):
        file = io.BytesIO()
        np.save(file, np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3).astype(dtype))
        found[name] = file.getvalue()
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
        found[name] = file.getvalue()
    return found


def mutate_json(text: bytes, generator: random.Random) -> bytes:
    """Another value in one place of a JSON object, or another name."""
    fields = json.loads(text)
    places: list[tuple[dict[str, object] | list[object], object]] = []

    def visit(value: object) -> None:
        keys = value.keys() if isinstance(value, dict) else range(len(value))  # type: ignore[arg-type]
        for key in keys:
            places.append((value, key))  # type: ignore[arg-type]
            if isinstance(value[key], dict | list):  # type: ignore[index]
                visit(value[key])  # type: ignore[index]

    visit(fields)
    container, key = generator.choice(places)
    odd = (None, True, -1, 0, 10**400, 1e999, float("nan"), "", "x" * 1000, [], {}, [[]], {"a": {}})
    odd += ("os:system", "../../x", "\x1b[31m", "1", 0.5, 2**63, [1, "a"], -(10**9), 10**9)
    match generator.randrange(3):
        case 0:
            container[key] = generator.choice(odd)  # type: ignore[index]
        case 1:
            del container[key]  # type: ignore[arg-type]
        case 2:
            if isinstance(container, dict):
                container[generator.choice(("config", "class_path", "__class__", ""))] = "os.system"
            else:
                container.append(generator.choice(odd))
    return json.dumps(fields).encode()


def damaged(originals: Mapping[str, bytes], number: int) -> tuple[str, bytes]:
    """The name and content of one damaged file, always the same.

    Args:
        originals: whole files by name.
        number: of the file; it decides the changes.
    """
    generator = random.Random(number)
    name = list(originals)[number % len(originals)]
    content = originals[name]
    if name.endswith(".json") and generator.random() < 0.7:
        return name, mutate_json(content, generator)
    content = mutate(content, list(originals.values()), generator)
    # Half of the PNG files get right checksums again.
    return name, with_right_checksums(content) if generator.random() < 0.5 else content


def fuzz(kind: str, count: int, *, first: int = 0, patience: float = PATIENCE) -> Outcome:
    """Read damaged files in a process with limits; a new one begins after a crash or a hang.

    Args:
        kind: "images" or "artifacts".
        count: of files.
        first: number of the first file.
        patience: seconds for one file.
    """
    outcome = Outcome(files=count)
    number, end = first, first + count
    while number < end:
        with tempfile.TemporaryDirectory() as place:
            here, work = Path(place, "here"), Path(place, "work")
            here.mkdir()
            work.mkdir()
            process = subprocess.Popen(
                [sys.executable, __file__, kind, str(end - number), str(number)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(here), "TMPDIR": str(work)},
                cwd=here,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            with process:
                number = _watch(process, number, end, outcome, patience)
    return outcome


def _watch(
    process: subprocess.Popen[str], number: int, end: int, outcome: Outcome, patience: float
) -> int:
    """Follow the process until it ends; returns the number of the next file."""
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []

    def listen() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    listening = [
        threading.Thread(target=listen, daemon=True),
        threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True),
    ]
    for each in listening:
        each.start()
    # The first line comes when the libraries are loaded.
    waited = 20 * patience
    while True:
        try:
            line = lines.get(timeout=waited)
        except queue.Empty:
            process.kill()
            outcome.hangs.append(str(number))
            line = None
        if line is None:
            process.wait()
            for each in listening:
                each.join()
            if number < end and str(number) not in outcome.hangs:
                said = "".join(errors)[-500:]
                outcome.crashes.append(f"{number}: exit code {process.returncode} {said}")
            return number + 1
        waited = patience
        verdict, _, said = line.rstrip("\n").partition(" ")
        if verdict not in ("read", "refused", "crashed"):
            continue
        if verdict == "read":
            outcome.read += 1
        elif verdict == "refused" and said and not re.search(r"[\x00-\x1f\x7f-\x9f]", said):
            outcome.refused += 1
        else:
            outcome.crashes.append(f"{number}: {line.strip()}")
        number += 1


class RefusedError(Exception):
    """The reason why one image cannot be used."""


def _image(path: Path) -> None:
    from noneg.images import find_source, stream_images
    from noneg.images.decode import decode, read_short_side
    from noneg.images.source import Unreadable

    if path.suffix.startswith(".np"):
        source = find_source(path)
        for _ in stream_images(source, channels=3, size=8, batch_size=4, on_skip=lambda _: None):
            pass
        return
    with path.open("rb") as file:
        try:
            read_short_side(file)
            file.seek(0)
            pixels = decode(file, 3, 24)
        except Unreadable as error:
            raise RefusedError(str(error)) from None
    assert pixels.shape == (3, 24, 24)


def write_artifacts(place: Path) -> None:
    """All files that noneg writes and reads again: run, encoder, classifier, cache and labels."""
    import torch

    import noneg
    from noneg.classifier.classifier import Classifier
    from noneg.collection.embedded import embed_collection

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    np.save(place / "images.npy", pixels)
    np.save(place / "images.labels.npy", np.arange(16) % 2)
    run = noneg.train(
        place / "images.npy",
        out=str(place / "run"),
        size=16,
        batch_size=8,
        steps=2,
        options={"projector": [8, 8]},
        precision="32-true",
        report=False,
    )
    width = run.encoder.info.features
    classifier = Classifier(run.encoder, torch.ones(2, width), torch.zeros(2), ("a", "b"))
    classifier.save(place / "classes")
    embed_collection(run.encoder, place / "images.npy")
    (place / "labels.csv").write_text("name,label\n0,a\n1,b\n")


def _artifact(path: Path) -> None:
    """Read one of `write_artifacts`, among the others, as the commands do."""
    import noneg
    from noneg.classifier.classifier import load_classifier
    from noneg.collection.embedded import embed_collection
    from noneg.commands.found import labels_in
    from noneg.commands.rank import rank_runs
    from noneg.records.contents import read_run
    from noneg.training.config import load_config
    from noneg.training.plan import plan_of

    place = next(each for each in path.parents if each.name == "all")
    match path.relative_to(place).parts:
        case ("classes", *_):
            load_classifier(place / "classes")
        case (".noneg", *_):
            embed_collection(noneg.load(place / "run"), place / "images.npy")
        case ("labels.csv",):
            labels_in(path)
        case ("run", "encoder", *_):
            noneg.load(place / "run")
        case ("run", "checkpoints", *_):
            noneg.train(resume_from=place / "run")
        case ("run", "config.yaml"):
            read_run(place / "run")
            plan_of(load_config(path))
        case _:
            read_run(place / "run")
            rank_runs([place / "run", place / "run"])


READERS: dict[str, Callable[[Path], None]] = {
    "images": _image,
    "artifacts": _artifact,
}


def _names_in(place: Path) -> set[str]:
    return {str(each.relative_to(place)) for each in place.rglob("*")}


def main() -> None:
    """Make files, read them, and say in a line what happened to each."""
    import resource

    import noneg.images
    from noneg.errors import NonegError

    assert noneg.images
    kind, count, first = sys.argv[1], int(sys.argv[2]), int((*sys.argv, "0")[3])
    read = READERS[kind]
    here = Path(tempfile.mkdtemp())
    place = here / "all"
    place.mkdir()
    originals = pictures() | arrays()
    if kind == "artifacts":
        write_artifacts(place)
        whole = here / "whole"
        shutil.copytree(place, whole)
        originals = {
            name: (whole / name).read_bytes()
            for name in sorted(_names_in(whole))
            if (whole / name).is_file() and not name.endswith(".npy")
        }
    # What the program takes without any damaged file.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    around = _names_in(Path.cwd())
    for number in range(first, first + count):
        name, content = damaged(originals, number)
        path = place / name
        if kind == "artifacts":
            shutil.rmtree(place)
            shutil.copytree(whole, place)
        path.write_bytes(content)
        out, sys.stdout = sys.stdout, io.StringIO()
        try:
            read(path)
        except (NonegError, RefusedError) as error:
            said = f"refused {error}"
        except MemoryError:
            said = "refused no memory"
        except Exception as error:
            said = f"crashed {name}: {type(error).__name__}: {' '.join(str(error).split())}"
        else:
            said = "read"
        finally:
            sys.stdout = out
        if strange := _names_in(Path.cwd()) - around:
            said = f"crashed {name} left {strange}"
        if kind != "artifacts":
            path.unlink()
        print(said.encode("utf-8", "backslashreplace").decode(), flush=True)
    with suppress(OSError):
        shutil.rmtree(here)


if __name__ == "__main__":
    main()
