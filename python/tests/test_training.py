"""A small transformer trains under our backward as under PyTorch's."""

import contextlib

# First: it skips where PyTorch is missing.
from sdpa import fresh, sdpa  # noqa: F401
import torch  # noqa: E402

import manyheads.torch as mt  # noqa: E402

STEPS, BATCH, LENGTH, WORDS, WIDTH, HEADS = 500, 8, 16, 16, 32, 4


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, 1)
        x = x + self.out(sdpa(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


def losses(backward=None, order=None):
    """The loss of each step: which word stood two places before, for each word of texts drawn at random."""
    torch.manual_seed(1)
    words, places = torch.nn.Embedding(WORDS, WIDTH), torch.nn.Embedding(LENGTH, WIDTH)
    model = torch.nn.ModuleList([words, places, Block(WIDTH), Block(WIDTH), torch.nn.Linear(WIDTH, WORDS)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    data = torch.Generator().manual_seed(2)
    found = []
    with contextlib.nullcontext() if backward is None else mt.use(backward=backward):
        for _ in range(STEPS):
            text = torch.randint(WORDS, (BATCH, LENGTH), generator=data)
            text = text if order is None else text[order]
            x = words(text) + places.weight
            for block in model[2:4]:
                x = block(x)
            loss = torch.nn.functional.cross_entropy(model[4](x[:, 2:]).flatten(0, 1), text[:, :-2].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return torch.tensor(found)


def test_losses_differ_less_than_those_of_pytorch_with_its_batch_in_another_order():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        want = losses()
        others = [losses(order=torch.randperm(BATCH, generator=torch.Generator().manual_seed(i))) for i in range(2)]
        mt.report(reset=True)
        ours = losses("manyheads")
        assert mt.report() == {"taken: attention": 2 * STEPS, "taken: backward": 2 * STEPS}
    finally:
        torch.set_num_threads(threads)
    assert want[-1] < 0.2 * want[0]  # it learns
    assert (ours - want).abs().mean() < max((x - want).abs().mean() for x in others)
