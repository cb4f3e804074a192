"""Removes debug information with source paths of the exporting machine from PyTorch artifacts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_WRITTEN_BY_TORCH = ("version", ".data/version", ".data/serialization_id")


def without_stack_traces(program: ExportedProgram) -> ExportedProgram:
    """The same program, with the source locations of its nodes removed in place."""
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if graph is not None else ():
            node.meta.pop("stack_trace", None)
    return program


def without_debug_sources(content: bytes) -> bytes:
    """The TorchScript archive without its tables of source lines, which are only used in error messages."""
    import torch

    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    names = reader.get_all_records()
    stated = next((name for name in ("version", ".data/version") if name in names), None)
    if stated is not None:
        writer.set_min_version(int(reader.get_record(stated)))  # determines the meaning of the operators
    for name in names:
        if name not in _WRITTEN_BY_TORCH and not name.endswith(".debug_pkl"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()
