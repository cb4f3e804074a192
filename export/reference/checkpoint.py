"""Loads the reference of an export from a checkpoint of other code: a state dict, in any of the usual wrappers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.export.options import IMAGE_SIZE
from stageproof.export.reference import inferred
from stageproof.export.reference.inferred import ASSUMED, FROM_FILE, FROM_OPTION, FROM_TENSORS, Fact
from stageproof.export.reference.model import Reference
from stageproof.runtime.bundle.manifest import FILE, ModelInfo, read_manifest
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL
from stageproof.runtime.labels import ASSUMED as ASSUMED_ORDER
from stageproof.runtime.networks.spec import default_head
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.foreign.class_order import NOTHING, ClassOrder, Given, decide
from stageproof.train.foreign.identification import Identified, identify
from stageproof.train.foreign.side_files import beside
from stageproof.train.foreign.stated_order import hints, stated
from stageproof.train.foreign.weight_files import read_contents
from stageproof.train.networks import construct
from stageproof.train.runs.directory import load_weights
from stageproof.train.runs.record import RECORD, read_record

if TYPE_CHECKING:
    from stageproof.export.options import Options


@dataclass(frozen=True)
class Described:
    """What the user, or a bundle, says about a foreign model; None and () where nothing is said."""

    architecture: str | None = None
    image_size: int | None = None
    classes: Given = NOTHING
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    key: str | None = None
    """Entry or prefix of the state dict, if the file has several."""
    bundle: Path | None = None
    """A bundle made from the file, whose class order replaces `classes`."""
    trust_code: bool = False
    """Whether a file that contains code may be loaded."""

    @classmethod
    def by(cls, options: Options, classes: Given) -> Described:
        """As the options of an export say."""
        return cls(
            options.architecture,
            options.image_size,
            classes,
            options.mean,
            options.std,
            options.checkpoint_key,
            trust_code=options.trust_code,
        )


def digest_of(path: Path, key: str | None = None) -> str:
    """SHA-256 of the file; with a key, of that and the key, because one file may have the weights of several models."""
    digest = sha256_file(path)
    return hashlib.sha256(f"{digest} {key}".encode()).hexdigest() if key else digest


def from_checkpoint(path: Path, described: Described) -> Reference:
    """The model of a checkpoint saved by other code.

    Network, head, classes and channels are told from the tensors. Class names are read from the file or files beside
    it, or assumed (`train.foreign.class_order`); three channels are normalised as ImageNet if not described.

    Raises CheckpointError for a file that does not fit or contradicts itself; InputError if it contradicts what is
    described, or if its normalisation is unknown.
    """
    contents = read_contents(path)
    network = identify(contents, described.architecture, described.key)
    spec = network.spec
    order = class_order(path, contents.beside, spec.classes, described)
    size, size_from = _size(path, network, described.image_size)
    given, normalised_from = input_spec(spec.architecture, spec.channels, size, described.mean, described.std)
    head = None if spec.head == default_head(spec.architecture) else spec.head
    digest = digest_of(path, described.key)
    info = ModelInfo(spec.architecture, digest, order.labels, order.classes, given, head=head)
    model = construct(info.network)
    load_weights(model, network.state, path)
    facts = [
        *_network_facts(network, described.architecture),
        *inferred.class_facts(order),
        *inferred.input_facts(given, size_from, normalised_from),
    ]
    provenance: dict[str, Any] = {"checkpoint": f"checkpoint-{digest[:12]}", inferred.KEY: inferred.record(facts)}
    if described.key:
        provenance["checkpoint_key"] = described.key
    return Reference(model.eval().requires_grad_(False), info, provenance, None, order)


def input_spec(
    what: str, channels: int, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> tuple[InputSpec, str]:
    """(input, source of its normalisation). size: (height, width). Raises InputError if it is unknown for one channel,
    or given for another number."""
    height, width = size
    if not mean and not std and channels == 3:
        usual = InputSpec.imagenet(height)
        return InputSpec(height, width, 3, usual.mean, usual.std), f"{ASSUMED}: ImageNet's; if not, --mean and --std"
    if len(mean) == len(std) == channels:
        return InputSpec(height, width, channels, tuple(mean), tuple(std)), FROM_OPTION
    raise InputError(
        f"{what} takes {channels} channel{'s' if channels > 1 else ''}, but --mean has {len(mean)} values "
        f"and --std {len(std)}. Give the normalisation used in training, such as --mean 0.28 --std 0.33."
    )


def class_order(path: Path, content: dict[str, Any], count: int, described: Described) -> ClassOrder:
    """The class order of a foreign file with `count` outputs. content: its metadata.

    Raises CheckpointError or InputError as `decide`, and if there is evidence against an assumed order.
    """
    statements = [*stated(content, path.name), *beside(path, count)]
    if described.bundle is not None:
        manifest, where = read_manifest(described.bundle), described.bundle / FILE
        model = manifest.model
        order = decide(statements, Given(model.labels, model.classes), path.name, count, option=str(where))
        return ClassOrder(order.labels, manifest.labels_from, f"from {where}", model.classes)
    order = decide(statements, described.classes, path.name, count)
    if order.origin == ASSUMED_ORDER and (why := _against_assuming(path, content, count)):
        raise CheckpointError(f"{path} does not state the order of its classes, and {why} Give it with --labels.")
    return order


def _size(path: Path, network: Identified, given: int | None) -> tuple[tuple[int, int], str]:
    """((height, width), its source). Raises InputError if it is not the one that the network is for."""
    own = network.spec.image_size
    if own is not None and given not in (None, own):
        raise InputError(
            f"--image-size is {given}, but the position embedding of {path} is for {own} × {own} pixels. Leave "
            "--image-size out."
        )
    if own is not None:
        return (own, own), FROM_TENSORS
    size = given or IMAGE_SIZE
    return (size, size), FROM_OPTION if given else f"{ASSUMED}; if not, --image-size"


def _network_facts(network: Identified, named: str | None) -> list[Fact]:
    spec, head = network.spec, network.head
    found = [Fact("architecture", spec.architecture, FROM_TENSORS + (", as named" if named else ""))]
    if head.hidden is None:
        found.append(Fact("head", "one fully connected layer", FROM_TENSORS))
    else:
        found.append(Fact("head", f"two fully connected layers, {head.hidden} hidden units", FROM_TENSORS))
        found.append(Fact("activation", "ReLU", f"{ASSUMED}: it has no tensors"))
    found.append(Fact("classes", str(spec.classes), FROM_TENSORS))
    found.append(Fact("channels", str(spec.channels), FROM_TENSORS))
    saved = {str(tensor.dtype).removeprefix("torch.") for tensor in network.state.values()}
    if saved != {"float32"}:
        found.append(Fact("precision", f"saved as {' and '.join(sorted(saved))}, loaded as float32", FROM_TENSORS))
    if network.key or network.prefix:
        found.append(Fact("state dict", network.where, FROM_FILE))
    found += [Fact("left out", f"{len(names)} tensors: {what}", FROM_FILE) for what, names in network.dropped.items()]
    return found


def _against_assuming(path: Path, content: dict[str, Any], count: int) -> str | None:
    """Evidence against an alphabetical class order, in a sentence; None if there is none."""
    for hint in hints(content, path.name, count):
        if hint.labels != ALPHABETICAL:
            return f"it may not be alphabetical: {hint}."
    if path.parent.name.endswith(".partial"):
        return "it is the checkpoint of a run that is not finished. Finish the run with --resume, and export that."
    with suppress(CheckpointError):  # another program's run.json
        recorded = ", ".join(read_record(path.parent)["labels"])
        return (
            f"{path.parent / RECORD} beside it is of other weights; whether they have its order, {recorded}, is open."
        )
    return None
