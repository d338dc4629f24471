"""A small transformer trains under our backward as under PyTorch's."""

import contextlib
import itertools
import json
import pathlib
import subprocess

# First: it skips where PyTorch is missing.
from sdpa import fresh, sdpa  # noqa: F401
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import manyheads.torch as mt  # noqa: E402

STEPS, BATCH, LENGTH, WORDS, WIDTH, HEADS = 500, 8, 16, 16, 32, 4
PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin" / "manyheads"
RELATIONS = ("verb", "adjective", "object", "before")


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width))

    def forward(self, x, **mask):
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, 1)
        x = x + self.out(sdpa(q, k, v, **mask).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Distance:
    """Texts drawn at random: which word stood two places before."""

    words, length, answers, causal = WORDS, LENGTH, 1, True

    def __init__(self):
        self.random = torch.Generator().manual_seed(2)

    def batch(self, step):
        text = torch.randint(WORDS, (BATCH, LENGTH), generator=self.random)
        partners = torch.nn.functional.pad(text[:, :-2], (2, 0), value=-1)
        return text, partners.unsqueeze(-1)


class Study:
    """The sentences of `manyheads study`: each word's partner in each relation, by name."""

    length, answers, causal = 20, len(RELATIONS), False

    def __init__(self, path):
        file = path.read_bytes()
        begin = 8 + int.from_bytes(file[:8], "little")

        def tensor(name):
            about = json.loads(file[8:begin])[name]
            first, end = about["data_offsets"]
            ids = np.frombuffer(file[begin + first : begin + end], np.int32).reshape(about["shape"])
            return torch.from_numpy(ids.astype(np.int64))

        self.text = tensor("words")
        self.words = int(self.text.max()) + 1
        places = torch.stack([tensor(name) for name in RELATIONS], -1)
        named = self.text.unsqueeze(-1).expand_as(places).gather(1, places.clamp(min=0))
        self.partners = named.masked_fill(places < 0, -1)

    def batch(self, step):
        these = slice(step * BATCH, (step + 1) * BATCH)
        return self.text[these], self.partners[these]


def losses(make, start, backward=None, order=None):
    """The loss of each step. `order`: a seed for another order of each batch's texts, and of their words where each sees
    all: every sum of the step in another order."""
    data = make()
    rows, columns = torch.arange(BATCH), torch.arange(data.length)
    if order is not None:
        random = torch.Generator().manual_seed(order)
        rows = torch.randperm(BATCH, generator=random)
        columns = columns if data.causal else torch.randperm(data.length, generator=random)
    torch.manual_seed(start)
    words, places = torch.nn.Embedding(data.words, WIDTH), torch.nn.Embedding(data.length, WIDTH)
    answer = torch.nn.Linear(WIDTH, data.words * data.answers)
    model = torch.nn.ModuleList([words, places, Block(WIDTH), Block(WIDTH), answer])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    with contextlib.nullcontext() if backward is None else mt.use(backward=backward):
        for step in range(STEPS):
            text, partners = (part[rows][:, columns] for part in data.batch(step))
            mask = {"is_causal": True} if data.causal else {"attn_mask": (text >= 0)[:, None, None, :]}
            x = words(text.clamp(min=0)) + places.weight[columns]
            for block in model[2:4]:
                x = block(x, **mask)
            named = answer(x).unflatten(-1, (data.answers, data.words))
            loss = torch.nn.functional.cross_entropy(named.flatten(0, 2), partners.flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return torch.tensor(found)


# Starts that learn without a jump of the loss: a jump makes any two runs differ, by a thousand times.
STARTS = (3, 4)


def compare(make):
    """Over the starts, how far our curve lies from PyTorch's, and how far the furthest two of PyTorch's from each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours_apart = theirs_apart = 1.0
    try:
        for start in STARTS:
            want, *_ = theirs = [losses(make, start, order=order) for order in (None, 0, 1)]
            mt.report(reset=True)
            ours = losses(make, start, "manyheads")
            assert mt.report() == {"taken: attention": 2 * STEPS, "taken: backward": 2 * STEPS}
            assert want[-20:].mean() < 0.2 * want[0]  # it learns
            ours_apart *= (ours - want).abs().mean().item()
            theirs_apart *= max((x - y).abs().mean().item() for x, y in itertools.combinations(theirs, 2))
    finally:
        torch.set_num_threads(threads)
    assert ours_apart < theirs_apart  # of each the product over the starts


def test_losses_differ_less_than_those_of_pytorch_with_its_batch_in_another_order():
    compare(Distance)


def test_losses_on_the_sentences_of_the_study_too(tmp_path):
    if not PROGRAM.exists():
        pytest.skip("needs build/release/bin/manyheads")
    path = tmp_path / "study.safetensors"
    subprocess.run([str(PROGRAM), "study", "--data", str(path)], check=True, capture_output=True)
    compare(lambda: Study(path))
