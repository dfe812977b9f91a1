import math

import torch

from models.layers.step_embedding import StepEmbedding, StepSignal


def test_the_signal_is_a_hundredth_of_a_sine_of_halving_frequency():
    signal = StepSignal(6)(torch.tensor([1, 50]))
    expected = [[[0.01 * math.sin(t / 2**f) for f in range(6)]] for t in (1, 50)]
    torch.testing.assert_close(signal, torch.tensor(expected))


def test_the_embedding_tells_steps_apart_and_is_learned():
    torch.manual_seed(0)
    embedding = StepEmbedding(8)
    vectors = embedding(torch.arange(1, 201))
    assert vectors.shape == (200, 1, 8)
    distance = torch.cdist(vectors[:, 0], vectors[:, 0]).fill_diagonal_(torch.inf)
    assert distance.min() > 1e-3
    vectors.sum().backward()
    assert embedding.linear.weight.grad is not None


def test_scripted_equals_eager():
    steps = torch.tensor([1, 17])
    for module in (StepSignal(6), StepEmbedding(6)):
        torch.testing.assert_close(torch.jit.script(module)(steps), module(steps))
