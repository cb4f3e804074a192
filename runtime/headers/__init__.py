"""What the first bytes of an image file declare: its format, size and number of images, checked before decoding."""
