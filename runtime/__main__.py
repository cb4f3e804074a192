"""`python -m runtime [BUNDLE] FILES…`: predict from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.backends import BACKENDS, SUFFIXES
from runtime.errors import ImageError, NeuroStageError
from runtime.manifest import FILE as MANIFEST
from runtime.prediction import Prediction
from runtime.predictor import DEFAULT_BUNDLE, Predictor

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm", ".jp2"}

_EPILOG = """\
The first path is taken as the bundle when it is one (or a lone .onnx or .ts).
A folder stands for the images in it, at any depth.

Exit status: 0 every image was answered, 1 one or more were not, 2 usage.
Research use only: not a medical device.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command. Results go to stdout, everything else to stderr."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)  # images may follow options
    bundle, images = _split(options.paths)
    if not images and not options.info:
        parser.error("no image was given. For example: python -m runtime scan.jpg")
    try:
        predictor = Predictor(
            bundle, backend=options.backend, precision=options.precision, device=options.device, threads=options.threads
        )
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.info:
        _print_info(predictor, as_json=options.json)
    unanswered = 0
    for image in images:
        try:
            prediction = predictor.predict(image)
        except ImageError as error:
            unanswered += 1
            print(
                json.dumps({"file": str(image), "error": str(error)}) if options.json else f"{image}: {error}",
                file=sys.stdout if options.json else sys.stderr,
            )
            continue
        if options.json:
            print(json.dumps({"file": str(image), **prediction.to_dict()}))
        else:
            print(_line(image, prediction))
    if images and not options.json:
        print("Research use only: not a diagnosis.", file=sys.stderr)
    return 1 if unanswered else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime",
        description="Predict the Alzheimer stage of brain-MRI slices with an exported bundle.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="images or folders, after the bundle")
    parser.add_argument("--info", action="store_true", help="say what the bundle holds and why this artifact serves")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    parser.add_argument("--backend", choices=list(BACKENDS), help="this engine or none (default: fastest that passed)")
    parser.add_argument("--precision", help="this precision or none, such as fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to run (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads for the engine (default: all it may use)")
    return parser


def _split(paths: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The bundle, and the images that the other paths stand for."""
    bundle = Path(DEFAULT_BUNDLE)
    rest = list(paths)
    if rest and (rest[0].suffix in SUFFIXES or (rest[0] / MANIFEST).is_file()):
        bundle = rest.pop(0)
    images: list[Path] = []
    for path in rest:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
            images += inside or [path]  # an empty folder is answered with the reader's own error
        else:
            images.append(path)
    return bundle, images


def _line(image: Path, prediction: Prediction) -> str:
    others = "  ".join(f"{name} {value:.1%}" for name, value in prediction.probabilities.items())
    return f"{image}\n  {prediction.label} (CDR {prediction.cdr:g})  {prediction.probability:.1%}\n  {others}"


def _print_info(predictor: Predictor, *, as_json: bool) -> None:
    model = predictor.model
    facts = {
        "artifact": str(predictor.artifact),
        "backend": predictor.backend,
        "engine": predictor.engine,
        "precision": predictor.precision,
        "model": model.to_dict(),
        "considered": predictor.explain(),
    }
    if as_json:
        print(json.dumps(facts))
        return
    spec = model.input
    print(f"serves     {predictor.artifact}, {predictor.precision}, {predictor.engine}")
    print(f"model      {model.architecture}, weights {model.digest[:16]}…, temperature {model.temperature:g}")
    print(f"input      {spec.channels} × {spec.height} × {spec.width}, {spec.interpolation}")
    print(f"labels     {', '.join(model.labels)}")
    for line in predictor.explain():
        print(f"considered {line}")


if __name__ == "__main__":
    sys.exit(main())
