import numpy as np
import onnxruntime
import pytest
import torch

from hilum.engines.initial_head import initial_head
from hilum.engines.torch.heads import ACTIVATIONS, BLOCKS, POOLS, TorchHead
from hilum.recipe import ModelSettings

CHANNELS, HEIGHT, WIDTH = 12, 4, 5


def make(**settings):
    chosen = ModelSettings(architecture="resnet18", weights="none", **settings)
    first = initial_head(chosen, channels=CHANNELS, height=HEIGHT, width=WIDTH, outputs=3, seed=1)
    head = TorchHead(first, chosen).eval()
    with torch.no_grad():  # biases of zero would hide a forgotten one
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return head


def features(seed=0):
    return torch.randn(2, CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def autograd_maps(head, read):
    """Grad-CAM as its paper has it: gradients averaged over places, times the features; no final ReLU."""
    read = read.detach().requires_grad_()
    logits = head(read)
    maps = []
    for column in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, column].sum(), read, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * read).sum(1))
    return torch.stack(maps, 1).detach()


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "attention"])
def test_maps_are_grad_cam_for_every_pool_depth_and_activation(pool, activation, hidden):
    head = make(pool=pool, activation=activation, hidden=hidden)
    with torch.inference_mode():
        logits, maps, embedding = head.explain(features())

    expected = autograd_maps(head, features())

    assert float((maps - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(logits, head(features()))
    torch.testing.assert_close(embedding, features().mean((2, 3)))


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_maps_of_an_attention_pool_sum_to_the_logit(hidden):
    head = make(pool="attention", hidden=hidden)
    with torch.inference_mode():
        logits, maps, _ = head.explain(features())

    torch.testing.assert_close(maps.sum((2, 3)), logits)


def test_attention_looks_where_its_scores_are():
    head = make(pool="attention")
    read = features()
    with torch.no_grad():
        read[:, :, 1, 2] = 30 * head.pool.hidden.weight[0]
        head.pool.last.weight.zero_()
        head.pool.last.weight[0, 0] = 50.0
        _, maps, _ = head.explain(read)

    assert float(maps[:, :, 1, 2].abs().sum()) > 0.9 * float(maps.abs().sum())


def test_l2_is_the_sum_of_squares_of_the_hidden_kernels_alone():
    head = make(hidden=(5, 4))

    kernels = [parameter for name, parameter in head.named_parameters() if name.endswith("weight")]

    assert len(kernels) == 3
    torch.testing.assert_close(head.penalty(), sum(kernel.square().sum() for kernel in kernels[:2]))


def test_flatten_reads_channel_row_column():
    chosen = ModelSettings(architecture="resnet18", weights="none", pool="flatten")
    first = initial_head(chosen, channels=CHANNELS, height=HEIGHT, width=WIDTH, outputs=3, seed=1)

    logits = TorchHead(first, chosen)(features()).detach().numpy()

    expected = np.einsum(
        "bchw,chwk->bk", features().numpy(), first.layers[0].kernel.reshape(CHANNELS, HEIGHT, WIDTH, 3)
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_squeeze_and_excitation_by_hand():
    head = make(block="se")
    first, second = head.block.squeeze, head.block.excite
    means = features().mean((2, 3))
    weights = torch.sigmoid(torch.relu(means @ first.weight.T + first.bias) @ second.weight.T + second.bias)

    torch.testing.assert_close(head.block(features()), features() * weights[:, :, None, None])


def test_cbam_weighs_channels_then_places():
    head = make(block="cbam")
    with torch.no_grad():  # with these the channels' weights are one half, and the places' too
        for layer in (head.block.excite, head.block.spatial):
            layer.weight.zero_()
            layer.bias.zero_()

    torch.testing.assert_close(head.block(features()), features() / 4)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_keep_the_shape(block):
    assert make(block=block).block(features()).shape == features().shape


def test_switching_a_block_on_leaves_the_dense_layers_draw_as_it_was():
    plain, attentive = (
        initial_head(
            ModelSettings(architecture="resnet18", weights="none", hidden=(8,), block=block),
            channels=32,
            height=2,
            width=2,
            outputs=1,
            seed=5,
        )
        for block in ("none", "cbam")
    )

    for one, other in zip(plain.layers, attentive.layers, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)
    assert attentive.spatial_attention.shape == (7, 7, 2)


class _Explained(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, read):
        return self.head.explain(self.head.block(read))


@pytest.mark.parametrize("settings", [{"pool": pool} for pool in POOLS] + [{"block": "cbam"}], ids=str)
def test_every_head_exports_with_a_dynamic_batch(settings, tmp_path):
    head = make(hidden=(8,), activation="gelu", **settings)
    program = torch.onnx.export(
        _Explained(head).eval(),
        (features(),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
        verbose=False,
    )
    program.save(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])

    for read in (features()[:1], torch.cat([features(1), features(2)])):
        found = session.run(None, {session.get_inputs()[0].name: read.numpy()})
        with torch.inference_mode():
            expected = head.explain(head.block(read))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
