"""`predict_slices`: the logits of a run for slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.data.batches import Batches
from stageproof.train.data.decode import Slices
from stageproof.train.engine.device import choose_compute
from stageproof.train.engine.loop import predict
from stageproof.train.foreign.weight_files import read_state
from stageproof.train.networks import construct
from stageproof.train.runs.directory import WEIGHTS, load_weights
from stageproof.train.terminal.bars import bar


def predict_slices(run: Path, record: dict[str, Any], slices: Slices, batch_size: int = 32) -> np.ndarray:
    """(N, classes) logits of the network of the run, computed in float32, without temperature scaling.

    Raises CheckpointError if the SHA-256 of the weights differs from that in the record.
    """
    path = run / WEIGHTS
    state = read_state(path)
    if (found := sha256_file(path)) != record["weights_sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {found[:12]}…, expected {record['weights_sha256'][:12]}… from the record of the run: "
            "the weights were changed after training. Train again."
        )
    info = ModelInfo.from_dict({**record, "digest": found}, str(run))
    model = construct(info.network)
    load_weights(model, state, path)
    device = choose_compute("auto", "fp32").device
    model.to(device).to(memory_format=torch.channels_last)
    pixels, labels = torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels)
    with bar("batches of slices", -(-len(slices) // batch_size)) as advance:
        model.register_forward_hook(lambda *_: advance())
        return predict(model, Batches(pixels, labels, info.input, batch_size, device=device))[0]
