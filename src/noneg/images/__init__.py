"""Where images come from: a folder, an array, a named data set, or any torch `Dataset`.

`find_source` turns what the user gave into an `ImageSource`. `load_images` decodes all its images
once, `images_on_demand` decodes an image each time it is needed, and `stream_images` decodes all
images in order, batch by batch.
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
