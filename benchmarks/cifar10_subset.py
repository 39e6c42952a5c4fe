"""Write a random choice of a folder's labeled images to one file, for the studies.

python benchmarks/cifar10_subset.py cifar10/train cifar10-train-4000.npz --images 4000
"""

import argparse
from pathlib import Path

import numpy as np

from noneg.images import find_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--size", type=int, default=32)
    chosen = parser.parse_args()
    source = find_source(chosen.folder)
    assert source.labels is not None
    some = np.sort(np.random.default_rng(0).permutation(len(source))[: chosen.images])
    pixels = np.stack([source.read(int(index), 3, chosen.size) for index in some])
    np.savez(chosen.out, images=pixels.transpose(0, 2, 3, 1), labels=source.labels[some])


if __name__ == "__main__":
    main()
