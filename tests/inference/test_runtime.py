"""Binary layers in each storage, and the one private function of torch among them."""

import pytest
import torch
from torch.nn import functional

from bclightning.functional.packing import pack_signs
from bclightning.inference.operations import SignLinear, _int8_product


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_torch_s_private_int8_product_is_the_exact_one_for_small_integers(batch):
    """`torch._weight_int8pack_mm` has no public twin; a new torch may change or drop it."""
    inputs = torch.randint(-1, 2, (batch, 64))
    weight = torch.randint(-1, 2, (32, 64), dtype=torch.int8)
    scales = 2.0 ** torch.randint(-2, 3, (32,))
    product = _int8_product(inputs.bfloat16(), weight, scales.bfloat16())
    assert product.dtype == torch.bfloat16
    assert torch.equal(product.float(), inputs.float() @ weight.float().T * scales)


@pytest.mark.parametrize("storage", ["bits", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("outputs", "features"), [(1, 1), (5, 33), (33, 31), (64, 32)])
def test_any_size_of_a_layer_is_exact_for_small_integers(storage, outputs, features):
    weight, bias = torch.randn(outputs, features), torch.randn(outputs)
    inputs = torch.randint(-3, 4, (3, features)).float()
    layer = SignLinear(pack_signs(weight), features, bias, storage)
    signs = torch.where(weight >= 0, 1.0, -1.0)
    torch.testing.assert_close(layer(inputs), functional.linear(inputs, signs, bias))
