"""`python -m runtime --bundle BUNDLE FILES…`: predict from the command line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from stageproof.runtime.backends import BACKENDS, DEVICES
from stageproof.runtime.bundle.manifest import DEFAULT_BUNDLE
from stageproof.runtime.cli import output as report
from stageproof.runtime.cli.csv_file import CsvFile, ExistingRows, read_existing
from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.cli.paths import STDIN, bundle_and_images
from stageproof.runtime.cli.sources import FROM_HELP, local_source
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.inference.arguments import check_outside_bundle
from stageproof.runtime.inference.engine_settings import OptimizeFor
from stageproof.runtime.labels import ASSUMED, ORIGINS, order_line
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.text.escapes import line
from stageproof.runtime.text.hints import command, missing_guard, program

logger = logging.getLogger("stageproof.runtime")  # __name__ is __main__ under python -m

MANY_IMAGES = 256
"""More images than this are predicted with an engine that is optimised for throughput."""

_EPILOG = f"""\
The model is loaded from --bundle or --from only; every other path is read as an
image.
Folders are searched for images at any depth; a file without a known suffix is
recognised by its content, and skipped files are counted. - reads one image from
standard input. The bundle in use is printed on standard error. More than
{MANY_IMAGES} images are predicted with an engine optimised for throughput.
DICOM files need the extra: pip install 'stageproof[dicom]'

Exit status: 0 every image has a label; 1 at least one image was rejected,
abstained on or unreadable, or the engine or audit log failed; 2 invalid usage
or input.
Research use only: not a medical device.
"""


_BACKEND_HELP = f"engine, without fallback: {', '.join(BACKENDS)} (default: fastest that passed parity)"


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command. Results are written to stdout, everything else to stderr."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)  # images may follow options
    if not options.paths and not (options.info or options.self_test):
        parser.error(f"no image was given. For example: {command('runtime', '--bundle', DEFAULT_BUNDLE, 'scan.jpg')}")
    if options.resume and not options.output:
        parser.error("--resume needs --output, the file to continue")
    if options.output and (options.json or options.csv or options.study):
        parser.error("--output writes CSV; it cannot be combined with --json, --csv or --study")
    if options.audit_key and not options.audit:
        parser.error("--audit-key needs --audit, the log that the key signs")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers is {options.workers}, expected at least 1")
    try:
        named = local_source(options.bundle, options.source, "bundle", "--bundle")
        bundle, found = bundle_and_images(options.paths, named)
        if not found.images and not (options.info or options.self_test):
            example = command("runtime", "--bundle", bundle, "scan.jpg")
            parser.error(f"no image was given for {bundle}. For example: {example}")
        check_outside_bundle(bundle, **{"--output": options.output})
        written = read_existing(options.output, resume=options.resume) if options.output else ExistingRows()
        if found.skipped:
            logger.info(found.skipped_words())
        many = sum(str(image) not in written.models for image in found.images) > MANY_IMAGES
        predictor = _load_predictor(bundle, options, "throughput" if many else "latency")
        return _run(predictor, bundle, found.images, written, options)
    except StageproofError as error:
        return report_error(error)


def _load_predictor(bundle: Path, options: argparse.Namespace, optimize_for: OptimizeFor) -> Predictor:
    """The predictor. Logs each of its warnings, and a missing guard, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        predictor = Predictor(
            bundle,
            backend=options.backend,
            precision=options.precision,
            device=options.device,
            threads=options.threads,
            optimize_for=optimize_for,
            audit=options.audit,
            audit_key=options.audit_key,
            trust_code=options.trust_code,
            trusted_key=options.trusted_key,
            trusted_digest=options.trusted_digest,
        )
    messages = [str(one.message) for one in caught] + ([] if predictor.guarded else [missing_guard(bundle)])
    for one in dict.fromkeys(messages):
        logger.warning(one)
    return predictor


def _run(
    predictor: Predictor, bundle: Path, images: list[Path], written: ExistingRows, options: argparse.Namespace
) -> int:
    status = 0
    if not options.info:
        logger.info(_describe_bundle(predictor, bundle))
    if predictor.labels_from == ASSUMED:
        logger.info(order_line(predictor.model.labels, ASSUMED))
    if options.info:
        _print_info(predictor, as_json=options.json)
    if options.self_test:
        result = predictor.self_test()
        status = 0 if result.passed else 1
        print(
            json.dumps(result.to_dict()) if options.json else f"self-test  {'ok' if not status else 'FAILED'}: {result}"
        )
    if images:
        answered = (
            _study(predictor, images, options) if options.study else _predict_each(predictor, images, written, options)
        )
        status = max(status, 0 if answered else 1)
        if not options.json and not options.csv:
            print("Research use only: not a diagnosis.", file=sys.stderr)
    if options.audit:
        logger.info(f"audit log {options.audit}: anchor {predictor.audit_anchor}")
    return status


def _describe_bundle(predictor: Predictor, bundle: Path) -> str:
    """One line that identifies the bundle, artifact and backend in use."""
    weights = f"weights {predictor.model.digest[:12]}"
    if bundle.is_file():
        return f"lone artifact {bundle}, {weights}, in {predictor.backend}"
    return (
        f"bundle {bundle}, SHA-256 {predictor.digest[:12]}, {weights}: {predictor.artifact.name} in {predictor.backend}"
    )


def _predict_each(predictor: Predictor, images: list[Path], written: ExistingRows, options: argparse.Namespace) -> bool:
    """Predict and print each image. True if every image has a label."""
    output, classes = None, predictor.model.classes.names
    if options.output:
        names = [str(image) for image in images]
        digest = predictor.model.digest
        output = CsvFile(options.output, written, model_digest=digest, classes=classes, names=names)
        images = [image for image in images if str(image) not in output.done]
    elif options.csv:
        print(report.header(classes), end="")
    progress = report.Progress(len(images))
    every = True
    try:
        for name, prediction in _predictions(predictor, images, options.workers):
            every = every and prediction.status == "ok"
            if output is not None:
                output.write(name, prediction)
            elif options.csv:
                print(report.row(name, prediction, classes), end="", flush=True)
            elif options.json:
                print(json.dumps({"file": name, **prediction.to_dict()}), flush=True)
            else:
                print(report.text(name, prediction), flush=True)
            progress.advance()
    finally:
        if output is not None:
            output.close()
    return every


def _predictions(predictor: Predictor, images: list[Path], workers: int | None) -> Iterator[tuple[str, Prediction]]:
    names = [str(image) for image in images]
    sources = (_source(image) for image in images)
    return zip(names, predictor.stream(sources, workers=workers), strict=True)


def _study(predictor: Predictor, images: list[Path], options: argparse.Namespace) -> bool:
    study = predictor.predict_study(_source(image) for image in images)
    if options.json:
        print(json.dumps({"files": [str(image) for image in images], **study.to_dict()}))
    else:
        print(report.study_text(study))
    return study.status == "ok"


def _source(image: Path) -> Path | BinaryIO:
    """The path, or standard input for ``-``; the size limit for files applies to both."""
    return image if image != STDIN else sys.stdin.buffer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("runtime"),
        description="Predict the Alzheimer stage of brain-MRI slices with an exported bundle.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="images, or folders of them")
    bundle = f"bundle folder that {program('export')} wrote, or a lone artifact; the only source of the model"
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help=bundle)
    parser.add_argument("--from", dest="source", metavar="SOURCE", help=f"as --bundle: {FROM_HELP}")
    parser.add_argument("--info", action="store_true", help="print the bundle's contents and the choice of artifact")
    parser.add_argument("--self-test", action="store_true", help="check the bundle's golden images on this machine")
    parser.add_argument("--study", action="store_true", help="one prediction from all images, slices of one patient")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line instead of text")
    form.add_argument("--csv", action="store_true", help="print CSV instead of text")
    parser.add_argument("--output", type=Path, metavar="FILE.csv", help="write CSV to this new file, line by line")
    parser.add_argument("--resume", action="store_true", help="continue --output, skipping the images it already has")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read and predict (default: by CPUs)")
    parser.add_argument("--audit", type=Path, metavar="LOG", help="append one line per image, without patient data")
    parser.add_argument("--audit-key", type=Path, metavar="FILE", help="key of the audit log (default: LOG.key)")
    code = "also load artifacts that contain code (.ts, .pt2, .engine); only for bundles whose author you trust"
    parser.add_argument("--trust-code", action="store_true", help=code)
    parser.add_argument("--trusted-key", type=Path, metavar="FILE", help="require a bundle signed with this key (PEM)")
    parser.add_argument("--trusted-digest", metavar="SHA256", help="require a bundle whose manifest has this SHA-256")
    parser.add_argument("--backend", choices=list(BACKENDS), metavar="NAME", help=_BACKEND_HELP)
    parser.add_argument("--precision", metavar="NAME", help="precision, without fallback, such as fp32")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="device to run on (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine (default: all available)")
    return parser


def _describe_study_rule(model: ModelInfo) -> str:
    """How `predict_study` combines the slices' probabilities, and its abstention threshold."""
    rule = model.study
    if rule is None:
        return "mean of the slices' probabilities, not calibrated for studies (this bundle has no study rule)"
    return f"probability calibrated on held-out patients, from all slices; {_describe_threshold(rule.abstain_below)}"


def _describe_threshold(below: float) -> str:
    """The abstention threshold in words. Nearly 1: none was certified (`train.evaluate --target-risk`)."""
    if below > 1 - 1e-9:
        return "always abstains: no threshold is certified"
    return f"abstains below {below:.1%}" if below else "never abstains"


def _print_info(predictor: Predictor, *, as_json: bool) -> None:
    model = predictor.model
    facts = {
        "artifact": str(predictor.artifact),
        "backend": predictor.backend,
        "engine": predictor.engine,
        "precision": predictor.precision,
        "optimize_for": predictor.optimize_for,
        "concurrent_calls": predictor.concurrent_calls,
        "guarded": predictor.guarded,
        "labels_from": predictor.labels_from,
        "model": model.to_dict(),
        "considered": predictor.explain(),
    }
    if as_json:
        print(json.dumps(facts))
        return
    spec = model.input
    print(line(f"artifact   {predictor.artifact}, {predictor.precision}, {predictor.engine}"))
    print(f"engine     optimised for {predictor.optimize_for}, concurrent calls: {predictor.concurrent_calls}")
    print(line(f"model      {model.architecture}, weights {model.digest[:16]}…, temperature {model.temperature:g}"))
    print(line(f"input      {spec.channels} × {spec.height} × {spec.width}, {spec.interpolation}"))
    print(line(f"labels     {', '.join(model.labels)}"))
    print(f"           {ORIGINS[predictor.labels_from]}")
    print(line(f"order      {' < '.join(model.classes.names)} (clinical)"))
    print(line(f"positive   {', '.join(model.classes.positive)}"))
    guard = "rejects out-of-distribution images" if predictor.guarded else "none: every image gets a class"
    print(f"guard      {guard}")
    print(f"slices     {_describe_threshold(model.abstain_below)}")
    print(f"studies    {_describe_study_rule(model)}")
    if considered := predictor.explain():
        print("candidates, measured fastest first:")
        print("\n".join(f"  {line(one)}" for one in considered))


if __name__ == "__main__":
    sys.exit(exit_status(main))
