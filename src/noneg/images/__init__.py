"""Where images come from: a folder, an array, a named data set, or any torch `Dataset`.

`find_source` turns what the user gave into an `ImageSource`; `load_images` decodes all of it once,
`images_on_demand` whenever an image is asked for, `stream_images` batch by batch in order.
"""

from noneg.images.find import find_source
from noneg.images.load import Images, images_on_demand, load_images, write_skipped
from noneg.images.on_demand import PixelsOnDemand
from noneg.images.reading import stream_images
from noneg.images.source import ImageSource, Skipped, Unreadable

__all__ = [
    "ImageSource",
    "Images",
    "PixelsOnDemand",
    "Skipped",
    "Unreadable",
    "find_source",
    "images_on_demand",
    "load_images",
    "stream_images",
    "write_skipped",
]
