"""`runtime.preprocess` in PyTorch operators, bit-exact, for TorchScript; arithmetic as in `export.preprocessing.onnx`.

Does not use `from __future__ import annotations`: the TorchScript compiler needs attribute annotations as types, not as
strings.
"""

import torch
from torch import nn

from stageproof.export.preprocessing.onnx import assert_bilinear, columns_may_come_first
from stageproof.runtime.preprocess import InputSpec


class WithPixels(nn.Module):
    """uint8 (N, H, W, 1 or 3) → (N, classes) float32 logits, or probabilities if a temperature is given."""

    luma: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, spec: InputSpec, temperature: float | None) -> None:
        """Raises InputError for an input that is not resized bilinearly."""
        super().__init__()
        assert_bilinear(spec)
        self.model = model
        self.height, self.width, self.grey = spec.height, spec.width, spec.channels == 1
        self.columns_may_come_first = columns_may_come_first()
        self.softmax, self.temperature = temperature is not None, temperature or 1.0
        self.register_buffer("luma", torch.tensor([19595.0, 38470.0, 7471.0]).view(1, 3, 1, 1))
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).float()
        if self.grey:
            images = torch.floor(((images * self.luma).sum(1, keepdim=True) + 32768) / 65536)
        height, width = images.shape[2], images.shape[3]
        less = height - self.height
        if self.columns_may_come_first and less > 0 and less > 2 * (width - self.width):
            images = self.resized_rows(self.resized_columns(images))
        else:
            images = self.resized_columns(self.resized_rows(images))
        logits = self.model((images / 255 - self.mean) / self.std)
        return torch.softmax(logits / self.temperature, 1) if self.softmax else logits

    def resized_rows(self, images: torch.Tensor) -> torch.Tensor:
        sums = images @ self.weights(images, images.shape[3], self.width).t()
        return self.rounded(sums[..., : self.width], sums[..., self.width :])

    def resized_columns(self, images: torch.Tensor) -> torch.Tensor:
        sums = self.weights(images, images.shape[2], self.height) @ images
        return self.rounded(sums[:, :, : self.height], sums[:, :, self.height :])

    def weights(self, like: torch.Tensor, length: int, size: int) -> torch.Tensor:
        """(2 × size, length) float32: rows of high bits of the weights, then of low bits."""
        middles = torch.arange(length, dtype=like.dtype, device=like.device) * 2 + 1
        places = torch.arange(size, dtype=like.dtype, device=like.device)[:, None] * 2 + 1
        share = torch.relu(2 * max(length, size) - (middles * size - places * length).abs())
        total = share.sum(1, keepdim=True)
        high = torch.floor(share * 2048 / total)
        low = torch.floor((share * 2048 - high * total) * 2048 / total + 0.5)
        return torch.cat([high, low])

    def rounded(self, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Integer pixel values, 0 to 255, from the sums of the high and the low parts."""
        carry = torch.floor((low + 2097152) / 2048)
        return torch.floor((high + carry) / 2048).clamp(0, 255)
