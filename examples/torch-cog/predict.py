# SPDX-License-Identifier: Apache-2.0
"""A Cog predictor around torch.compile, as its users write it.

Nothing here knows of warmcache: where the compile cache lies comes from
TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR alone.
"""

import hashlib
import time

import torch
import torch.nn.functional as F
from cog import BasePredictor, Input
from torch import nn
from torch._dynamo.utils import counters

SEED = 1234
IMAGE_SIZE = 64


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        batch, length, dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, dim))


class SwiGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = RMSNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = RMSNorm(dim)
        self.mlp = SwiGLU(dim, 2 * dim)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    def __init__(self, dim=128, heads=4, depth=4, classes=100):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim // 2),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=4, padding=1),
            nn.BatchNorm2d(dim),
            nn.GELU(),
        )
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = RMSNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Build the network and make the first call, so that READY means compiled."""
        torch.manual_seed(SEED)
        self.model = torch.compile(Net().eval())
        start = time.monotonic()
        self.infer(seed=0, batch=1)
        self.first_call_seconds = time.monotonic() - start

    def infer(self, seed, batch):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        with torch.inference_mode():
            return self.model(images)

    def predict(
        self,
        seed: int = Input(description="Seed of the random images", default=0),
        batch: int = Input(description="Number of images", default=1, ge=1, le=64),
    ) -> dict:
        start = time.monotonic()
        output = self.infer(seed, batch)
        return {
            "checksum": hashlib.sha256(output.contiguous().numpy().tobytes()).hexdigest(),
            "shape": list(output.shape),
            "mean": float(output.mean()),
            "fxgraph_cache_hit": counters["inductor"]["fxgraph_cache_hit"],
            "fxgraph_cache_miss": counters["inductor"]["fxgraph_cache_miss"],
            "first_call_seconds": round(self.first_call_seconds, 3),
            "call_seconds": round(time.monotonic() - start, 3),
            "torch": torch.__version__,
        }
