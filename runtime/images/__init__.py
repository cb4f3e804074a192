"""Reading of images from files, encoded bytes, arrays and DICOM."""

from stageproof.runtime.images.raster import FORMATS, ImageSource, decode, read_image, unencoded

__all__ = ["FORMATS", "ImageSource", "decode", "read_image", "unencoded"]
