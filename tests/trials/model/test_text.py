from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trials.errors import ModelError
from trials.model.text import (
    BagClassifier,
    GruClassifier,
    TransformerClassifier,
    WordEmbedding,
    mean_over_words,
    reverse_words,
    trim,
)

WORDS, LONGEST = 50, 12
TEXTS = [[5, 6, 7, 8, 9, 10, 11], [12], [6, 6, 40], [49, 1, 1, 3, 2]]


def bag(embedding_dropout: float = 0.0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return lively(BagClassifier(WORDS, 3, 8, embedding_dropout, dropout))


def gru(depth: int = 2, bidirectional: bool = True, embedding_dropout: float = 0.0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return lively(GruClassifier(WORDS, 3, 8, 6, depth, bidirectional, embedding_dropout, dropout))


def transformer(embedding_dropout: float = 0.0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return lively(TransformerClassifier(WORDS, LONGEST, 3, 8, 2, 4, 2, embedding_dropout, dropout))


def lively(model: nn.Module) -> nn.Module:
    """Embeddings as large as training makes them, so that no difference drowns in rounding."""
    nn.init.normal_(model.embedding.weight[1:])
    return model


ALL = pytest.mark.parametrize("build", [bag, gru, transformer])
IN_ORDER = pytest.mark.parametrize("build", [gru, transformer])
Build = Callable[..., nn.Module]


def padded(texts: list[list[int]], length: int) -> Tensor:
    return torch.tensor([text + [0] * (length - len(text)) for text in texts])


@pytest.mark.parametrize(("depth", "bidirectional"), [(1, False), (1, True), (3, False), (3, True)])
def test_the_gru_has_the_parameters_of_its_formula(depth: int, bidirectional: bool) -> None:
    model = GruClassifier(WORDS, 3, 8, 6, depth, bidirectional)
    directions = 2 if bidirectional else 1
    # three gates, each with an input and a recurrent matrix and two biases
    layers = sum(directions * 3 * (inputs * 6 + 6 * 6 + 6 + 6) for inputs in [8] + [6 * directions] * (depth - 1))
    expected = WORDS * 8 + layers + 6 * directions * 3 + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_transformer_has_the_parameters_of_its_formula() -> None:
    model = TransformerClassifier(WORDS, LONGEST, 3, width=8, depth=2, heads=4, feed_forward=3)
    attention = 4 * (8 * 8 + 8)
    feed_forward = 8 * 24 + 24 + 24 * 8 + 8
    norms = 2 * (8 + 8)
    expected = (WORDS + LONGEST) * 8 + 2 * (attention + feed_forward + norms) + (8 + 8) + 8 * 3 + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gru_is_torchs_on_packed_sequences(bidirectional: bool) -> None:
    model = gru(3, bidirectional)
    twin = nn.GRU(8, 6, num_layers=3, bidirectional=bidirectional, batch_first=True)
    directions = ["ahead", "back"] if bidirectional else ["ahead"]
    for name, parameter in twin.named_parameters():
        kind, layer = name.removesuffix("_reverse").split("_l")
        own = model.get_parameter(f"layers.{layer}.{directions[name.endswith('_reverse')]}.{kind}_l0")
        parameter.data.copy_(own)
    ids, lengths = padded(TEXTS, LONGEST), [len(text) for text in TEXTS]
    packed = pack_padded_sequence(model.embedding(ids), torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    read = pad_packed_sequence(twin(packed)[0], batch_first=True)[0]
    means = torch.stack([row[:length].mean(dim=0) for row, length in zip(read, lengths, strict=True)])
    torch.testing.assert_close(model(ids), model.head(means))


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_more_padding_changes_no_bit(build: Build, training: bool) -> None:
    model = build().train(training)
    with torch.set_grad_enabled(training):
        logits = model(padded(TEXTS, 7))
        for length in (8, LONGEST):
            assert torch.equal(model(padded(TEXTS, length)), logits)


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_a_text_says_the_same_beside_longer_ones(build: Build, training: bool) -> None:
    model = build().train(training)
    with torch.set_grad_enabled(training):
        together = model(padded(TEXTS, LONGEST))
        alone = torch.cat([model(torch.tensor([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone)


@ALL
def test_padding_alone_is_a_text_too(build: Build) -> None:
    model = build()
    logits = model(padded([[], [5, 6]], LONGEST))
    assert bool(logits.isfinite().all())
    logits.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    assert bool(model.eval()(torch.zeros(2, LONGEST, dtype=torch.int64)).isfinite().all())


def test_the_bag_is_a_linear_layer_on_the_mean_of_its_words() -> None:
    model = bag()
    vectors, head = model.embedding.weight, model.head
    by_hand = torch.stack([head(sum(vectors[word] for word in text) / len(text)) for text in TEXTS])
    torch.testing.assert_close(model(padded(TEXTS, LONGEST)), by_hand)
    assert sum(parameter.numel() for parameter in model.parameters()) == WORDS * 8 + 8 * 3 + 3


def test_a_bag_has_no_order() -> None:
    ahead, back = bag()(torch.tensor([[5, 6, 7], [7, 6, 5]]))
    torch.testing.assert_close(ahead, back)


@IN_ORDER
def test_the_order_of_words_matters(build: Build) -> None:
    with torch.no_grad():
        ahead, back = build().eval()(torch.tensor([[5, 6, 7], [7, 6, 5]]))
    assert float((ahead - back).abs().max()) > 1e-3


@ALL
def test_the_vector_of_padding_is_zero_and_stays(build: Build) -> None:
    model = build()
    assert not bool(model.embedding.weight[0].any())
    model(padded(TEXTS, LONGEST)).square().sum().backward()
    assert not bool(model.embedding.weight.grad[0].any())
    assert bool(model.embedding.weight.grad[torch.tensor(TEXTS[0])].any(dim=1).all())


def test_embeddings_start_small() -> None:
    torch.manual_seed(0)
    model = TransformerClassifier(400, 300, 2, width=64, depth=1, heads=1)
    for weight in (model.embedding.weight[1:], model.places.weight):
        # the standard error of a standard deviation from n numbers is 1 / sqrt(2 n) of it
        assert abs(float(weight.detach().std()) / 0.02 - 1) < 4 / (2 * weight.numel()) ** 0.5


def test_whole_words_are_dropped_throughout_a_text() -> None:
    embedding = WordEmbedding(WORDS, 4, 0.25).train()
    nn.init.ones_(embedding.weight)
    ids = torch.randint(1, WORDS, (2000, 30), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    scale = embedding(ids)
    torch.manual_seed(1)
    assert torch.equal(embedding(ids), scale)
    assert torch.equal(scale, scale[..., :1].expand_as(scale))  # the whole vector
    assert scale.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    kept = scale[..., 0] > 0
    same = ids[:, :, None] == ids[:, None, :]
    assert torch.equal(same & kept[:, :, None], same & kept[:, None, :])  # all occurrences in a text alike
    drawn = [len(set(row.tolist())) for row in ids]  # one draw a different word
    dropped = sum(len(set(row[~keep].tolist())) for row, keep in zip(ids, kept, strict=True))
    assert abs(dropped - 0.25 * sum(drawn)) < 4 * (0.25 * 0.75 * sum(drawn)) ** 0.5
    of_one_word = [bool(keep[row == 7][0]) for row, keep in zip(ids, kept, strict=True) if (row == 7).any()]
    assert 0.6 < sum(of_one_word) / len(of_one_word) < 0.9  # drawn for each text, not for the batch
    assert bool((embedding.eval()(ids) == 1).all())


@ALL
def test_dropout_acts_while_training_only_and_follows_the_global_seed(build: Build) -> None:
    model, ids = build(embedding_dropout=0.3, dropout=0.5), padded(TEXTS, LONGEST)
    torch.manual_seed(3)
    first, second = model(ids), model(ids)
    torch.manual_seed(3)
    assert torch.equal(model(ids), first)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(ids), build().eval()(ids))


@ALL
def test_the_same_bits_twice(build: Build) -> None:
    def gradients() -> list[Tensor]:
        model = build(embedding_dropout=0.1, dropout=0.1)
        logits = model(padded(TEXTS * 8, LONGEST))
        logits.square().sum().backward()
        with torch.inference_mode():
            evaluated = model.eval()(padded(TEXTS, LONGEST))
        return [logits.detach(), evaluated, *(parameter.grad for parameter in model.parameters())]

    for first, second in zip(gradients(), gradients(), strict=True):
        assert torch.equal(first, second)


@ALL
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_close(build: Build, dtype: torch.dtype, tolerance: float) -> None:
    model, ids = build(), padded(TEXTS, LONGEST)
    whole = model(ids)
    with torch.autocast("cpu", dtype=dtype):
        half = model(ids)
    half.float().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    with torch.autocast("cpu", dtype=dtype), torch.inference_mode():
        evaluated = model.eval()(ids)
    for logits in (half, evaluated):
        torch.testing.assert_close(logits.float(), whole, atol=tolerance, rtol=0.0)


def test_layers_of_the_transformer_start_apart() -> None:
    model = transformer()
    first, second = (model.get_parameter(f"layers.{layer}.self_attn.in_proj_weight") for layer in (0, 1))
    assert not torch.equal(first, second)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ModelError, match=r"^model.width: found 8, expected a multiple of heads, 3$"):
        TransformerClassifier(WORDS, LONGEST, 3, width=8, depth=1, heads=3)


def test_trim_counts_words_and_cuts_what_is_padding_in_all() -> None:
    ids, lengths = trim(padded(TEXTS, LONGEST))
    assert ids.tolist() == padded(TEXTS, 7).tolist()
    assert lengths.tolist() == [7, 1, 3, 5]


def test_words_are_reversed_and_averaged_without_padding() -> None:
    features = torch.tensor([[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0]]).unsqueeze(2)
    lengths = torch.tensor([3, 1])
    assert reverse_words(features, lengths)[..., 0].tolist() == [[3.0, 2.0, 1.0, 9.0], [4.0, 9.0, 9.0, 9.0]]
    assert mean_over_words(features, lengths).tolist() == [[2.0], [4.0]]
