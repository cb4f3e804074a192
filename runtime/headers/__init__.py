"""Header checks of image files before decoding: format, declared size and number of images."""
