"""Compressions of zip members that unpack no more than they are asked for."""

from __future__ import annotations

import zipfile

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""`zipfile` unpacks members of bzip2 and LZMA whole, however much is read of them: a few megabytes become gigabytes."""
