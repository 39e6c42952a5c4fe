"""Where images come from: a folder, an array, a named data set, or any torch `Dataset`.

`find_source` turns what the user gave into an `ImageSource`; `load_images` decodes all of it once,
`stream_images` decodes it batch by batch in bounded memory.
"""

from noneg.images.find import find_source
from noneg.images.load import Images, load_images, write_skipped
from noneg.images.source import ImageSource, Skipped, Unreadable
from noneg.images.stream import stream_images

__all__ = [
    "ImageSource",
    "Images",
    "Skipped",
    "Unreadable",
    "find_source",
    "load_images",
    "stream_images",
    "write_skipped",
]
