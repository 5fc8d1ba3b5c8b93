"""What is measured of PyTorch, for `turns.race`: functions of plain arguments -> (work, about)."""

import timeit

import torch
from torch import nn
from torch.utils import mkldnn

from benchmarks import turns


def _about():
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def matrix_product(rows, depth, columns, library):
    """One product of float32 matrices; library: "MKL", which PyTorch takes by itself, or "oneDNN"."""
    one = torch.randn(rows, depth)
    if library == "MKL":
        other = torch.randn(depth, columns)
        return lambda: torch.mm(one, other), _about()
    one, layer = one.to_mkldnn(), mkldnn.to_mkldnn(torch.nn.Linear(depth, columns, bias=False).eval())
    return torch.no_grad()(lambda: layer(one)), _about()


def fastest_product(libraries, **sizes):
    """A `matrix_product` by the library that is the fastest one on this CPU, which `about` names."""
    def tried(library):
        work, about = matrix_product(library=library, **sizes)
        return min(timeit.repeat(work, number=1, repeat=5)), library, work, about

    _, library, work, about = min(map(tried, libraries), key=lambda one: one[0])
    return work, dict(about, library=library)


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


def distillation_loop(batch, length, units, width=768, layers=6, vocabulary=21128, embedding=200):
    """An update of the plain loop: frozen BERT, BiLSTM, three terms and labels, Adam; every text full."""
    teacher = _bert(vocabulary, width, layers).eval()
    student = nn.ModuleDict({
        "words": nn.Embedding(vocabulary, embedding), "first": nn.Linear(embedding, width, bias=False),
        "projections": nn.ModuleList(nn.Linear(2 * units, width, bias=False) for _ in range(3)),
        "layers": nn.ModuleList(nn.LSTM(embedding if not layer else 2 * units, units, batch_first=True,
                                        bidirectional=True) for layer in range(3)),
        "classes": nn.Linear(2 * units, 2)})
    classes = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    ids, labels = torch.randint(0, vocabulary, (batch, length)), torch.randint(0, 2, (batch,))

    def step():
        with torch.no_grad():
            states = teacher(ids, output_hidden_states=True).hidden_states
            answers = classes(states[-1][:, 0]).softmax(-1)
        optimizer.zero_grad(set_to_none=True)
        hidden = student["words"](ids)
        loss = nn.functional.mse_loss(student["first"](hidden), states[0])
        for layer, (lstm, projection) in enumerate(zip(student["layers"], student["projections"])):
            hidden = nn.functional.dropout(lstm(hidden)[0], 0.1)
            loss = loss + nn.functional.mse_loss(projection(hidden), states[2 * layer + 1])
        logits = student["classes"](hidden[:, -1])
        loss = loss + nn.functional.cross_entropy(logits, answers) + nn.functional.cross_entropy(logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step, _about()


def _bert(vocabulary, width, layers):
    from transformers import BertConfig, BertModel  # noqa: PLC0415  takes seconds, and one contender needs it

    return BertModel(BertConfig(vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers,
                                num_attention_heads=width // 64, intermediate_size=4 * width), add_pooling_layer=False)


if __name__ == "__main__":
    turns.serve({"matrix_product": matrix_product, "fastest_product": fastest_product,
                 "lstm_stack": lstm_stack, "distillation_loop": distillation_loop})
