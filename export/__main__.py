"""`python -m export`: the newest run, or a named one, to a bundle."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from export.options import parse
from runtime.errors import CheckpointError, InputError, NeuroStageError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 everything asked for is in the bundle, 1 something did not hold, 2 usage."""
    options = parse(argv)
    from export.pipeline import export

    if "torchscript" in options.to:
        print("TorchScript is deprecated since torch 2.9. Prefer --to onnx where you can choose.", file=sys.stderr)
    try:
        exported = export(options)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, (InputError, CheckpointError)) else 1
    if options.json:
        print(json.dumps({"bundle": str(exported.bundle), "artifacts": [asdict(a) for a in exported.new]}))
        return 0
    model = exported.manifest.model
    spec = model.input
    print(f"{model.architecture}, {spec.channels} × {spec.height} × {spec.width}, weights {model.digest[:12]}…")
    for artifact in exported.new:
        size = artifact.size_bytes / 1e6
        print(f"{exported.bundle / artifact.file}  {artifact.format} {artifact.precision}  {size:.1f} MB")
        for check in artifact.checks:
            parity = check.parity
            print(f"  {check.engine}: {parity['flipped']} of {parity['images']} decisions flipped,")
            print(
                f"    probabilities within {parity['max_probability_difference']:.1e} "
                f"(allowed {parity['tolerance']:.0e}), logits within {parity['max_logit_difference']:.1e},"
            )
            print(f"    {check.latency_ms:.1f} ms an image here, engine only")
    print(f"compared with eager float32 on slices of {exported.new[0].checks[0].parity['source']}")
    for line in exported.unchecked:
        print(line, file=sys.stderr)
    bundle = "" if str(exported.bundle) == "bundle" else f"{exported.bundle} "
    print(f"\nNext: python -m runtime {bundle}scan.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
