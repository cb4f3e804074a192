"""Reading of DICOM files as 8-bit images, by the standard's display pipeline."""
