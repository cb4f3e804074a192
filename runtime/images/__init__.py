"""Images of any kind become decoded pixels: files, bytes, arrays, DICOM."""

from stageproof.runtime.images.raster import FORMATS, ImageSource, decode, read_image, unencoded

__all__ = ["FORMATS", "ImageSource", "decode", "read_image", "unencoded"]
