"""Moving channels in and out, with every instruction set, between guard pages."""

import pytest
import torch
from guarded_memory import GuardedMemory
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels import _native, channels
from sparseplan.kernels.channels import keep_channels, put_channels, take_channels

DTYPES = [torch.float32, torch.bfloat16, torch.uint8]
ISAS = ["baseline", *(isa for isa in _native.isa_list() if isa == "avx512bf16")]


def values(*shape: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if dtype is torch.uint8:
        return torch.randint(0, 256, shape, generator=generator).byte()
    return torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_take_and_put(isa: str, data: st.DataObject) -> None:
    total, pixels = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 140))
    threads, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99))
    dtype = data.draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(seed)
    density = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]))
    kept = (torch.rand(total, generator=generator) < density).nonzero().flatten()
    if not len(kept):
        kept = torch.tensor([total - 1])
    native = _native.Channels(isa=isa, total=total, index=kept.tolist(), value_bytes=dtype.itemsize)
    for place in ("end", "start"):
        memory = GuardedMemory(place)
        x = memory.copy(values(pixels, total, dtype=dtype, generator=generator))
        some = memory.like(torch.empty(pixels, len(kept), dtype=dtype))
        native.gather(x.data_ptr(), x.nbytes, some.data_ptr(), some.nbytes, threads)
        assert torch.equal(some, x[:, kept])
        constant = memory.copy(values(total, dtype=dtype, generator=generator))
        full = memory.like(x)
        native.scatter(
            some.data_ptr(), some.nbytes, constant.data_ptr(), constant.nbytes, full.data_ptr(), full.nbytes, threads
        )
        assert torch.equal(full, constant.expand(pixels, -1).clone().index_copy_(1, kept, some))
        memory.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_images_keep_their_memory_order(dtype: torch.dtype) -> None:
    x = values(2, 37, 3, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([0, 5, 36])
    moved = keep_channels(37, kept, dtype)
    taken = take_channels(moved, x)
    assert torch.equal(taken, x[:, kept])
    back = put_channels(moved, taken, torch.zeros(37, dtype=dtype))
    assert torch.equal(back[:, kept], taken)
    assert torch.count_nonzero(back) == torch.count_nonzero(taken)
    for y in (taken, back):
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_cap_on_instruction_sets_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEPLAN_ISA", "baseline")
    asked = []
    monkeypatch.setattr(channels._native, "Channels", lambda **options: asked.append(options["isa"]))
    keep_channels(4, torch.tensor([1]), torch.float32)
    assert asked == ["baseline"]


def test_refuses_what_does_not_fit() -> None:
    for index in ([1, 1], [2, 1], [-1], [4]):
        with pytest.raises(ValueError, match="ascend"):
            _native.Channels(isa="baseline", total=4, index=index, value_bytes=4)
    with pytest.raises(ValueError, match="1, 2 or 4 bytes"):
        _native.Channels(isa="baseline", total=4, index=[1], value_bytes=8)
    native = _native.Channels(isa="baseline", total=4, index=[1], value_bytes=4)
    x, y = torch.zeros(3, 4), torch.zeros(3, 2)
    with pytest.raises(ValueError, match="sizes differ"):
        native.gather(x.data_ptr(), x.nbytes, y.data_ptr(), y.nbytes, 1)
    with pytest.raises(ValueError, match="constant differs"):
        native.scatter(y.data_ptr(), 12, x.data_ptr(), 8, x.data_ptr(), x.nbytes, 1)
