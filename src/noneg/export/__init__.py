"""The encoder in the formats of other tools. One file per format, each with an entry in `FORMATS`.

Every export is checked after it was written: what the other tool computes is compared with the
encoder, and an export that differs is an error, and leaves no file.
"""

from typing import Final

FORMATS: Final = {
    "onnx": "one file for ONNX Runtime and others; uint8 images of any size in, features out",
    "timm": "a directory for timm, transformers and the Hugging Face Hub, with a model card",
    "torch": "one file for torch.export.load, without noneg",
}
"""What `noneg export` writes, by its name."""
