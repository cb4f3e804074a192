"""DICOM files become 8-bit images as the standard displays them."""
