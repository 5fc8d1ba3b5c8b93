"""What is measured of PyTorch, for `turns.race`: functions of plain arguments -> (work, about)."""

import torch

from benchmarks import turns


def _about():
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def matrix_product(rows, depth, columns):
    """One product of float32 matrices."""
    one, other = torch.randn(rows, depth), torch.randn(depth, columns)
    return lambda: torch.mm(one, other), _about()


def lstm_stack(units, batch, length, features=200, layers=3, train=True):
    """The same as `tensorflow_contenders.lstm_stack`, of `torch.nn.LSTM`."""
    model = torch.nn.LSTM(features, units, layers, batch_first=True, bidirectional=True)
    given = torch.randn(batch, length, features, requires_grad=train)
    factors = torch.randn(batch, length, 2 * units)

    def forward():
        with torch.no_grad():
            model(given)[0].sum().item()

    def step():
        model.zero_grad(set_to_none=True)
        given.grad = None
        (model(given)[0] * factors).sum().backward()

    return (step if train else forward), _about()


if __name__ == "__main__":
    turns.serve({"matrix_product": matrix_product, "lstm_stack": lstm_stack})
