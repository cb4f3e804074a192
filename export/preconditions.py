"""Checks that an export makes before it imports torch or an engine, so that invalid input fails within a second.

Each failure is an input error (exit status 2); nothing has been written by then.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stageproof.export.bundle.signing import assert_can_sign
from stageproof.export.data.calibration import CALIBRATED, calibration_pool, calibration_samples, check_calibration
from stageproof.export.data.comparison import GIVEN, comparison, given_samples
from stageproof.export.data.overlap import pixel_digests
from stageproof.export.data.run_data import run_data, side_names
from stageproof.export.data.sampling import PATIENTS
from stageproof.export.engines.runners import check_backends, missing
from stageproof.export.formats import FORMATS, artifact_files, assert_pixels, combinations, missing_package
from stageproof.export.options import IMAGE_SIZE, Options
from stageproof.export.parity.coverage import LEAST_IMAGES
from stageproof.export.parity.family import artifacts_by_bound, check_count, limit_of
from stageproof.export.reference.graph_source import assert_trusted, kind_of, makeable
from stageproof.runtime.bundle.manifest import FILE, read_manifest
from stageproof.runtime.errors import CheckpointError, DependencyError, InputError
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.class_column import UnknownLabelSetError
from stageproof.train.foreign.class_order import given_labels
from stageproof.train.foreign.file_types import refuse_folder, refuse_stranger
from stageproof.train.runs.finding import chosen, run_of_file
from stageproof.train.runs.record import RECORD, data_path, read_record

logger = logging.getLogger(__name__)

_SIZE = {"fp32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8": 0.3, "fp8": 0.3}
"""Size of an artifact, relative to the float32 weights."""
_WORK = 4.0
"""Size of the temporary graphs during an export, relative to the float32 weights."""


def check(options: Options, wanted: Mapping[str, Sequence[str]] | None = None) -> tuple[Options, dict[str, list[str]]]:
    """(options with an absolute source path, the same for every process of the export; format → precisions).

    Logs the run or checkpoint, and the bundle.

    wanted: format → precisions; replaces those of the options.

    Raises InputError, CheckpointError, DatasetError, BundleError or DependencyError for an export that cannot succeed.
    """
    chosen_formats = combinations(options.to, options.precision) if wanted is None else wanted
    requested = {name: list(precisions) for name, precisions in chosen_formats.items()}
    assert_pixels(list(requested), options.with_preprocessing, options.with_softmax)
    check_numbers(options)
    given_labels(options.labels, options.classes, options.positive)
    options = with_absolute_source(options)
    logger.info(f"bundle {options.out}")
    assert options.source is not None, "set by with_absolute_source()"
    requested = makeable(options.source, requested, every="all" in (*options.to, *options.precision))
    check_formats(options, requested, skip=wanted is None and "all" in options.to)
    return options, requested


def check_formats(options: Options, wanted: Mapping[str, Sequence[str]], skip: bool = False) -> None:
    """Raise what `check` raises for an export in these formats, whose options are otherwise valid. skip: as in
    `check_engines`."""
    assert_pixels(list(wanted), options.with_preprocessing, options.with_softmax)
    check_engines(wanted, skip)
    check_output(options, wanted)
    if options.sign:
        assert_can_sign(options.sign)
    check_calibrated(options, wanted)
    check_images(options, wanted)


def check_numbers(options: Options) -> None:
    """Raise InputError for a numeric option outside its range."""
    rules = [
        (
            "--parity-images",
            options.parity_images,
            options.parity_images is None or options.parity_images >= LEAST_IMAGES,
            f"{LEAST_IMAGES} or more",
        ),
        ("--threads", options.threads, options.threads is None or options.threads >= 1, "1 or more"),
        ("--image-size", options.image_size, options.image_size is None or options.image_size >= 8, "8 or more"),
        ("--tolerance", options.tolerance, options.tolerance is None or 0 < options.tolerance <= 1, "in (0, 1]"),
        (
            "--flip-tolerance",
            options.flip_tolerance,
            options.flip_tolerance is None or 0 <= options.flip_tolerance < 1,
            "in [0, 1)",
        ),
    ]
    for option, value, valid, expected in rules:
        if not valid:
            raise InputError(f"{option} is {value:g}, expected {expected}.")


def with_absolute_source(options: Options) -> Options:
    """The options with the run or checkpoint as an absolute path. Logs which it is.

    Raises CheckpointError if it does not exist or cannot be read, or if the run is not finished.
    """
    source = options.source
    if source is not None and source.is_file() and (run := run_of_file(source)):
        logger.info(f"{source} is the weight file of run {run}: exporting the run")
        source = run
    if source is not None and source.is_file():
        logger.info(f"checkpoint {source}")
        if not os.access(source, os.R_OK):
            raise CheckpointError(f"{source}: this user has no read permission. Change its permissions.")
        assert_trusted(source, options.trust_code)
        if kind_of(source) is None:
            refuse_stranger(source)
    else:
        if source is not None and source.is_dir() and not (source / RECORD).is_file():
            refuse_folder(source)
        source = chosen(source)
    return replace(options, source=source.resolve())


def check_engines(wanted: Mapping[str, Sequence[str]], skip: bool) -> None:
    """Raise DependencyError if a package that building or checking a format needs is not installed.

    skip: skip formats whose package is missing, as `--to all` does; ONNX Runtime for quantisation is still required.
    """
    for name in wanted:
        module = FORMATS[name]
        if skip:
            continue
        if reason := missing_package(module):
            raise DependencyError(f"{name} {reason}. Nothing was built.")
        runs = [engine for engine, backend in check_backends().items() if name in backend.FORMATS]
        reasons = {engine: reason for engine in runs if (reason := missing(engine))}
        if runs and len(reasons) == len(runs) and not module.NEEDS_GPU:
            causes = "; ".join(f"{engine!r} {reason}" for engine, reason in reasons.items())
            raise DependencyError(f"no installed backend can check {name} artifacts: {causes}. Nothing was built.")
    quantised = [name for name, precisions in wanted.items() if set(CALIBRATED) & set(precisions)]
    if quantised and not find_spec("onnxruntime"):
        raise DependencyError(
            f"quantising {', '.join(quantised)} needs the package onnxruntime: pip install 'stageproof[onnx]'. Nothing "
            "was built."
        )


def check_output(options: Options, wanted: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError if the bundle cannot be written, BundleError if an existing bundle cannot be read."""
    out = options.out
    if out.exists() and not (out / FILE).is_file():
        kind = "a file" if out.is_file() else f"a folder without {FILE}"
        raise InputError(f"{out} is {kind}, not a bundle. Give another --out; nothing was written.")
    if out.exists():
        read_manifest(out)
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{out} cannot be written: {above} is not a folder. Give another --out.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written: no write permission for {above}. Give another --out.")
    needed, free = _bytes(options, wanted), shutil.disk_usage(above).free
    if free < needed:
        raise InputError(
            f"{above} has {free / 1e9:.1f} GB free; this export needs about {needed / 1e9:.1f} GB. Free disk space, or "
            "give another --out."
        )


def _bytes(options: Options, wanted: Mapping[str, Sequence[str]]) -> float:
    """Upper estimate of the disk space of an export, in bytes: weights, graphs and comparison images."""
    source = options.source
    assert source is not None, "set by with_absolute_source()"
    files = [source] if source.is_file() else list(source.glob("*.safetensors"))
    weights = max((file.stat().st_size for file in files), default=0)
    artifacts = sum(_SIZE.get(precision, 1.0) for precisions in wanted.values() for precision in precisions)
    height = options.image_size or IMAGE_SIZE if source.is_file() else int(read_record(source)["input"]["height"])
    images = limit_of(options, (one for listed in wanted.values() for one in listed)) * 3 * height * height * 4
    return weights * (artifacts * (2 if options.with_preprocessing else 1) + _WORK) + images


def check_images(options: Options, wanted: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError if there are fewer comparison images, or patients, than a precision's tolerance requires."""
    precisions = list(dict.fromkeys(precision for listed in wanted.values() for precision in listed))
    people, unit, source = _available(options, limit_of(options, precisions))
    files = artifact_files(wanted, options.with_preprocessing)
    check_count(people, source, precisions, options, artifacts_by_bound(options, files), unit)


def _available(options: Options, limit: int) -> tuple[np.ndarray | int, str, str]:
    """(patient of each comparison image, or the number of images if patients are unknown; unit; source of the images).

    Phantoms are not generated here: there are always enough. Patients are not identified by image similarity here,
    which takes long: each image counts as one patient.
    """
    source = options.source
    assert source is not None, "set by with_absolute_source()"
    run = source if source.is_dir() else None
    if options.parity_data is None and (run is None or _phantoms(run) or run_data(run).samples is None):
        return np.arange(limit) // (4 if run is None or not _phantoms(run) else 6), PATIENTS, "phantoms"
    try:
        found = comparison(run, limit, options.parity_data, classes=_given_classes(options), by_similarity=False)
    except UnknownLabelSetError:  # the classes that a checkpoint states are read with torch; the images, after that
        logger.info(f"the classes of {options.parity_data} are compared with those of {source} once it is read")
        return np.arange(limit), PATIENTS, str(options.parity_data)
    people = found.samples.groups
    if people is None and found.kind == GIVEN:
        people = np.arange(len(found.samples))
    return len(found.samples) if people is None else people, found.unit, found.samples.source


def _phantoms(run: Path) -> bool:
    return data_path(run, read_record(run)) is None


def _has_data(run: Path) -> bool:
    """Whether the run was trained on images other than phantoms, which are still there."""
    return not _phantoms(run) and run_data(run).samples is not None


def check_calibrated(options: Options, wanted: Mapping[str, Sequence[str]]) -> None:
    """Raise DatasetError if int8 or fp8 is requested and there are too few calibration images, or none."""
    if not any(set(CALIBRATED) & set(precisions) for precisions in wanted.values()):
        return
    source = options.source
    assert source is not None, "set by with_absolute_source()"
    run = source if source.is_dir() else None
    if run is not None and options.calibration_data is None and _phantoms(run):
        check_calibration(len(side_names(run, "training")), f"the training part of {run}")
    else:
        classes = _given_classes(options)
        if run is None and options.calibration_data is None:
            calibration_pool(None, None)  # raises the error that says so
        if run is None and _unknown_classes(classes, options.calibration_data, options.parity_data):
            return
        # Calibration images are compared with real ones: no user's image is a phantom, which take long to draw.
        real = options.parity_data is not None or (run is not None and _has_data(run))
        limit = limit_of(options, (one for listed in wanted.values() for one in listed))
        found = comparison(run, limit, options.parity_data, classes=classes, by_similarity=False) if real else None
        calibration_samples(
            run,
            options.calibration_data,
            moved=options.parity_data,
            compared=() if found is None else pixel_digests(found.samples),
            classes=classes,
        )


def _given_classes(options: Options) -> LabelSet | None:
    """The label set of a checkpoint, if options name it; None for a run, which records its own."""
    if options.source is not None and options.source.is_dir():
        return None
    return given_labels(options.labels, options.classes, options.positive).classes


def _unknown_classes(classes: LabelSet | None, *given: Path | None) -> bool:
    """Whether class names of given data belong to no built-in label set, so that a checkpoint has to be read first."""
    try:
        for path in given:
            if path is not None:
                given_samples(path, classes)
    except UnknownLabelSetError:
        return True
    return False
