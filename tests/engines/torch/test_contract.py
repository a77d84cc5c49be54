"""The contract of an engine, held by the PyTorch engine; its losses against PyTorch's own."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from engines.contract import *  # noqa: F403
from engines.contract import LOGITS, Side, loss_of
from hilum.engines.torch import TorchEngine, train
from hilum.engines.torch.losses import make_loss


class TorchSide(Side):
    engine = TorchEngine()
    train = train
    session = train.TorchSession
    weight_file = "model.safetensors"
    profile_parts = ("loader", "forward", "backward", "optimizer", "validation")
    out_of_memory = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    def weights(self, model):
        return {key: value.numpy() for key, value in model.state_dict().items()}

    def head_kernel(self, model):
        return model.head.layers[-1].weight.detach().numpy()

    def backbone_kernels(self, model):
        return [layer.parameters[0].detach().numpy() for layer in model.layers]

    def layers(self, model):
        return [
            [
                value.detach().numpy().copy()
                for value in (*layer.parameters, *layer.module.buffers(recurse=False))
            ]
            for layer in model.layers
        ]

    def head(self, model):
        return [value.detach().numpy().copy() for value in model.head.parameters()]

    def set_head(self, model, arrays):
        model.head.load_state_dict(
            {key: torch.from_numpy(value) for key, value in zip(model.head.state_dict(), arrays, strict=True)}
        )

    def training_logits(self, model, images):
        with torch.inference_mode():
            return model.train()(train.to_float(images)).numpy()

    def random_state(self):
        return torch.get_rng_state().tolist()

    def broken_loss(self):
        return lambda *_: (torch.tensor(torch.nan, requires_grad=True), torch.tensor(8))

    def loss(self, recipe, smoothing=0.0):
        def loss(logits, labels, weights):
            outputs = torch.tensor(logits, requires_grad=True)
            total, count = make_loss(recipe, smoothing=smoothing)(
                outputs, torch.tensor(labels), torch.tensor(weights)
            )
            total.backward()
            return float(total.detach()), int(count), outputs.grad.numpy()

        return loss


@pytest.fixture(scope="module")
def side():
    return TorchSide()


def test_smoothing_of_classes_is_pytorchs(side):
    labels = np.eye(3, dtype=np.float32)[[2, 0]]

    total, _, _ = loss_of(side, "auto", kind="multiclass", smoothing=0.1)(
        LOGITS, labels, np.ones((3, 2), np.float32)
    )

    expected = functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor([2, 0]), reduction="sum", label_smoothing=0.1
    )
    assert total == pytest.approx(float(expected), rel=1e-6)
