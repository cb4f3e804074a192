"""What a stranger's file is refused for is in no file that an export builds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stageproof.export.formats import FORMATS, file_name, missing_package
from stageproof.export.preprocessing import TAKES
from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.inspection import assert_harmless
from stageproof.runtime.artifacts.verified_bytes import ModelFile

BUILT = [
    pytest.param(name, precision, pixels, id=f"{name}-{precision}{'-pixels' if pixels else ''}")
    for name, module in FORMATS.items()
    if name not in ("aotinductor", "tensorrt")
    for precision in module.PRECISIONS
    for pixels in ((False, True) if module.PIXELS else (False,))
]


@pytest.fixture(scope="module")
def lenient_job(job, tmp_path_factory):
    """Accepts the changes that 16 people cannot exclude: files are built, and not judged."""
    folder = tmp_path_factory.mktemp("lenient")
    return replace(job, options=replace(job.options, flip_tolerance=0.5), folder=folder, work=folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "pixels"), BUILT)
def test_every_file_that_an_export_builds_passes(lenient_job, tmp_path, name, precision, pixels):
    module = FORMATS[name]
    if reason := missing_package(module):
        pytest.skip(f"{name} {reason}")
    path = tmp_path / file_name(module, precision, pixels)
    built = module.build(lenient_job, precision, path, **({"pixels": True} if pixels else {}))
    assert built.takes == (TAKES if pixels else TENSOR)
    assert_harmless(ModelFile.read(path, built.takes), name, trust_code=True)
