"""From a series of MR images, DICOM or NIfTI, to an oriented volume."""
