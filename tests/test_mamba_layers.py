"""The layers of the Mamba detectors against the definitions that they rewrite."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.errors import CheckFailed
from antispoof.models.bimamba import SincConfig, SincStream
from antispoof.models.layers.attention_pool import AttentionPool
from antispoof.models.layers.bimamba import BiMambaBlock
from antispoof.models.layers.fusion import DualStreamFusion, stretch
from antispoof.models.layers.lora import LoraLinear, add_lora
from antispoof.models.layers.mamba import DT_FLOOR, DT_MAX, Mamba
from antispoof.models.layers.moe import SwitchMoE
from antispoof.models.layers.sinc import LearnableSincConv, SincConv

WIDTH = 144  # of the published models
# float32 sums of up to 288 terms in another order; outputs are of the order of 1.
ROUNDING = 1e-5
STEP_ROUNDING = 1e-6
DEAD_NORMS = 2 * (32 + 32 + 64 + 64 + 64)  # weights and biases that the public residual blocks overwrite


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seeded, and on one thread: thousands of small operations only wait for a second one."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def mamba() -> Mamba:
    """A layer whose every weight matters: at its initial values D is 1 everywhere."""
    layer = Mamba(WIDTH).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return layer


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def published_mamba(layer: Mamba, x: Tensor) -> Tensor:
    """The causal layer in float64, operation by operation as in the paper's listing."""
    w = {name: value.double() for name, value in layer.state_dict().items()}
    x, gate = F.linear(x.double(), w["in_proj.weight"]).chunk(2, -1)
    length, groups = x.shape[1], x.shape[2]
    x = F.conv1d(x.transpose(1, 2), w["conv1d.weight"], w["conv1d.bias"], padding=3, groups=groups)
    x = F.silu(x[:, :, :length].transpose(1, 2))
    dt, b, c = F.linear(x, w["x_proj.weight"]).split([layer.dt_rank, layer.states, layer.states], -1)
    dt = F.softplus(F.linear(dt, w["dt_proj.weight"], w["dt_proj.bias"]))
    rate = -torch.exp(w["A_log"])
    h = x.new_zeros(len(x), *rate.shape)
    ys = []
    for t in range(length):
        h = torch.exp(dt[:, t, :, None] * rate) * h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        ys.append((h * c[:, t, None]).sum(-1) + w["D"] * x[:, t])
    return F.linear(torch.stack(ys, 1) * F.silu(gate), w["out_proj.weight"])


def test_sizes_are_the_published_ones() -> None:
    assert parameters(Mamba(WIDTH)) == 145_440
    assert parameters(BiMambaBlock(WIDTH)) == 312_624
    assert parameters(DualStreamFusion(1024, 64, WIDTH)) == 203_632
    assert parameters(SincStream(SincConfig())) + DEAD_NORMS == 211_074


def test_names_are_those_of_mamba_ssm() -> None:
    shapes = {name: tuple(value.shape) for name, value in Mamba(WIDTH).state_dict().items()}
    assert shapes == {
        "A_log": (288, 16),
        "D": (288,),
        "in_proj.weight": (576, 144),
        "conv1d.weight": (288, 1, 4),
        "conv1d.bias": (288,),
        "x_proj.weight": (41, 288),
        "dt_proj.weight": (288, 9),
        "dt_proj.bias": (288,),
        "out_proj.weight": (144, 288),
    }


def test_training_starts_from_the_published_rates_and_step_sizes() -> None:
    layer = Mamba(WIDTH)
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 17.0).expand(288, 16))
    assert bool((layer.D == 1).all())
    dt = F.softplus(layer.dt_proj.bias).detach()
    assert DT_FLOOR * 0.99 <= float(dt.min()) < 0.003
    assert 0.03 < float(dt.max()) <= DT_MAX * 1.01


def test_mamba_equals_its_definition(mamba: Mamba) -> None:
    x = torch.randn(2, 37, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(mamba(x).double(), published_mamba(mamba, x), atol=ROUNDING, rtol=0)


def test_backwards_equals_flipping(mamba: Mamba) -> None:
    x = torch.randn(2, 37, WIDTH)
    with torch.no_grad():
        flipped = mamba(x.flip(1)).flip(1)
        torch.testing.assert_close(mamba(x, reverse=True), flipped, atol=ROUNDING, rtol=0)
        assert float((flipped - mamba(x)).abs().max()) > 100 * ROUNDING  # the directions do differ
        torch.testing.assert_close(mamba.both_ways(x), mamba(x) + flipped, atol=ROUNDING, rtol=0)


def test_a_sequence_shorter_than_the_convolution(mamba: Mamba) -> None:
    x = torch.randn(1, 2, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(mamba(x).double(), published_mamba(mamba, x), atol=ROUNDING, rtol=0)


def test_streaming_equals_the_whole_sequence(mamba: Mamba) -> None:
    x = torch.randn(1, 2000, WIDTH)
    with torch.inference_mode():
        whole = mamba(x)
        state = mamba.start(1)
        frames = []
        for frame in x.unbind(1):
            y, state = mamba.step(frame, state)
            frames.append(y)
    torch.testing.assert_close(torch.stack(frames, 1), whole, atol=STEP_ROUNDING, rtol=STEP_ROUNDING)


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("mamba_ssm") is None,
    reason="needs a CUDA device and the mamba_ssm package",
)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_cuda_kernel_gives_the_same_numbers(mamba: Mamba, reverse: bool) -> None:
    x = torch.randn(2, 201, WIDTH)
    with torch.no_grad():
        expected = mamba(x, reverse)
        found = mamba.cuda()(x.cuda(), reverse).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)  # the kernel's exp is a fast one


def test_experts_are_the_best_two_renormalised() -> None:
    moe = SwitchMoE(16, 32)
    x = torch.randn(2, 50, 16)
    likely = torch.softmax(moe.gate(x), -1)
    best, index = likely.topk(2, -1)
    expected = torch.zeros_like(likely).scatter_(-1, index, best / (best.sum(-1, keepdim=True) + 1e-6))
    torch.testing.assert_close(moe.weights(x), expected)
    outputs = torch.stack([expert(x) for expert in moe.experts], -1)
    torch.testing.assert_close(moe(x), (outputs * expected.unsqueeze(2)).sum(-1))


def test_equal_experts_are_still_only_two() -> None:
    moe = SwitchMoE(16, 32)
    nn.init.zeros_(moe.gate.weight)
    nn.init.zeros_(moe.gate.bias)
    assert moe.weights(torch.randn(1, 3, 16)).count_nonzero(-1).unique().tolist() == [2]


@pytest.mark.parametrize(("coarse", "fine"), [(29, 201), (7, 49), (1, 5), (29, 1000), (58, 403)])
def test_stretching_is_nearest_interpolation(coarse: int, fine: int) -> None:
    x = torch.randn(2, coarse, 3)
    expected = F.interpolate(x.transpose(1, 2), size=fine, mode="nearest").transpose(1, 2)
    torch.testing.assert_close(stretch(x, fine), expected, atol=0, rtol=0)


def test_the_pool_is_a_weighted_mean_in_any_order() -> None:
    pool, x = AttentionPool(8), torch.randn(2, 11, 8)
    weight = torch.softmax(x @ pool.score.weight[0] + pool.score.bias, 1)
    torch.testing.assert_close(pool(x), torch.einsum("bt,btc->bc", weight, x))
    torch.testing.assert_close(pool(x.flip(1)), pool(x))


def test_learnable_filters_start_at_the_constant_ones() -> None:
    torch.testing.assert_close(
        LearnableSincConv(bands_used=69)._current_filters(),
        SincConv(bands_used=69).filters,
        atol=1e-6,
        rtol=0,
    )


def test_learnable_filters_learn_and_freeze() -> None:
    bank, waveform = LearnableSincConv(6, 33), torch.randn(1, 400)
    bank(waveform).square().sum().backward()
    with torch.no_grad():
        for edges in (bank.low_khz, bank.width_khz):
            assert edges.grad is not None
            assert float(edges.grad.abs().min()) > 0
            edges.add_(0.1)
        bank.low_khz[0] = -0.5  # stands for 0.5 kHz
        bank.low_khz[5] = 9.0  # beyond the Nyquist frequency: an empty band
        before = bank(waveform)
        bank.freeze()
    assert not list(bank.parameters())
    torch.testing.assert_close(bank(waveform), before, atol=0, rtol=0)
    assert bool(torch.isfinite(before).all())


def trained_adapter() -> LoraLinear:
    layer = LoraLinear(nn.Linear(64, 48), rank=8, alpha=32, dropout=0.1).eval()
    nn.init.normal_(layer.get_parameter("lora_B.default.weight"), std=0.1)
    return layer


def test_an_adapter_starts_at_nothing_and_merges() -> None:
    base = nn.Linear(64, 48)
    x = torch.randn(5, 64)
    torch.testing.assert_close(LoraLinear(base, 8, 32, 0.0)(x), base(x), atol=0, rtol=0)
    layer = trained_adapter()
    with torch.no_grad():
        before = layer(x)
        assert float((before - layer.base_layer(x)).abs().max()) > 0.1
        layer.freeze()
        torch.testing.assert_close(layer(x), before, atol=ROUNDING, rtol=0)
    assert set(layer.state_dict()) == {"base_layer.weight", "base_layer.bias"}


def test_a_merge_that_goes_wrong_is_refused() -> None:
    layer = trained_adapter()
    with torch.no_grad():
        layer.get_parameter("lora_B.default.weight")[0, 0] = torch.inf
        with pytest.raises(CheckFailed, match="LoRA"):
            layer.freeze()


def test_adapters_are_those_of_peft() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that peft imports
        peft = pytest.importorskip("peft")
        own = nn.ModuleDict({"q_proj": nn.Linear(64, 64), "k_proj": nn.Linear(64, 64)})
        theirs = nn.ModuleDict({"q_proj": nn.Linear(64, 64), "k_proj": nn.Linear(64, 64)})
        config = peft.LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
        peft.inject_adapter_in_model(config, theirs)
    add_lora(own)
    assert {k: v.shape for k, v in own.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    for value in theirs.state_dict().values():
        nn.init.normal_(value)
    own.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 64)
    torch.testing.assert_close(own.eval()["q_proj"](x), theirs.eval()["q_proj"](x))
    trained = {name for name, p in own.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in theirs.named_parameters() if p.requires_grad}
