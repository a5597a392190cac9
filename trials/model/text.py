"""The built-in models for text: int64 word ids (N, L), padding (0) at the end, to (N, outputs).

Padding never changes what a model says: it is left out of the reading and of the mean. A text of nothing but padding
counts as one word.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trials.errors import ModelError

EMBEDDING_STD = 0.02
"""Spread of fresh embeddings (arXiv:1810.04805). After four epochs on 6,000 movie reviews it gave the GRU 0.78 of the
selection split and the Transformer 0.77, where torch's 1 gave 0.71 to 0.75: so large, they hardly move."""


class WordEmbedding(nn.Embedding):
    """Ids (N, L) to (N, L, width); while training, words are dropped whole (arXiv:1512.05287).

    Whether a word is dropped is drawn once for each text, so that it is gone everywhere in it. What stays is scaled by
    1 / (1 - dropout). Padding is a vector of zeros that is never trained.
    """

    def __init__(self, vocabulary_size: int, width: int, dropout: float) -> None:
        super().__init__(vocabulary_size, width, padding_idx=0)
        nn.init.normal_(self.weight[1:], std=EMBEDDING_STD)
        self.dropout = dropout

    def forward(self, ids: Tensor) -> Tensor:
        embedded = super().forward(ids)
        if not self.training or self.dropout == 0.0:
            return embedded
        ones = embedded.new_ones(len(ids), self.num_embeddings)
        return embedded * functional.dropout(ones, self.dropout).gather(1, ids).unsqueeze(2)


class BagClassifier(nn.Module):
    """The mean of word embeddings, and a linear head (arXiv:1607.01759); dropout acts before the head."""

    def __init__(
        self, vocabulary_size: int, outputs: int, width: int, embedding_dropout: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary_size, width, embedding_dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) -> (N, outputs)."""
        ids, lengths = trim(ids)
        logits: Tensor = self.head(self.dropout(mean_over_words(self.embedding(ids), lengths)))
        return logits


class GruLayer(nn.Module):
    """A GRU that reads (N, L, width) to (N, L, hidden), or in both directions to (N, L, 2 hidden).

    Backward it starts at each text's own last word. Each direction is a plain GRU over the padded batch: packed
    sequences give the same, but take twice as long on a CPU.
    """

    def __init__(self, width: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = nn.GRU(width, hidden, batch_first=True)
        self.back = nn.GRU(width, hidden, batch_first=True) if bidirectional else None

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """``lengths`` (N,) are the numbers of words; what is given for padding means nothing."""
        ahead: Tensor = self.ahead(features)[0]
        if self.back is None:
            return ahead
        back = reverse_words(self.back(reverse_words(features, lengths))[0], lengths)
        return torch.cat([ahead, back], dim=2)


class GruClassifier(nn.Module):
    """Word embeddings, ``depth`` layers of GRU (arXiv:1406.1078), the mean over the words, a linear head.

    Dropout acts between the layers and before the head.
    """

    def __init__(
        self,
        vocabulary_size: int,
        outputs: int,
        width: int,
        hidden: int,
        depth: int,
        bidirectional: bool = True,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary_size, width, embedding_dropout)
        features = hidden * (2 if bidirectional else 1)
        inputs = [width] + [features] * (depth - 1)
        self.layers = nn.ModuleList(GruLayer(size, hidden, bidirectional) for size in inputs)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) -> (N, outputs)."""
        ids, lengths = trim(ids)
        features = self.embedding(ids)
        for index, layer in enumerate(self.layers):
            features = layer(self.dropout(features) if index else features, lengths)
        logits: Tensor = self.head(self.dropout(mean_over_words(features, lengths)))
        return logits


class TransformerClassifier(nn.Module):
    """Embeddings of words and places, ``depth`` pre-LN encoder layers, the mean over the words, a linear head.

    arXiv:1706.03762, with the norm before each part (arXiv:2002.04745) and a last one after all; places are learned.
    Dropout acts on what each part adds, inside the feed-forward part and before the head, not on attention weights.
    Raises ``ModelError`` unless ``heads`` divides ``width``.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_tokens: int,
        outputs: int,
        width: int,
        depth: int,
        heads: int,
        feed_forward: int = 2,
        embedding_dropout: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"model.width: found {width}, expected a multiple of heads, {heads}")
        self.embedding = WordEmbedding(vocabulary_size, width, embedding_dropout)
        self.places = nn.Embedding(max_tokens, width)
        nn.init.normal_(self.places.weight, std=EMBEDDING_STD)
        # Not torch's TransformerEncoder: it copies one layer, so that all would start with the same weights.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, feed_forward * width, dropout, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            layer.self_attn.dropout = 0.0  # of L^2 weights a head: on a CPU it takes longer than all the rest
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) -> (N, outputs), L at most ``max_tokens``."""
        ids, lengths = trim(ids)
        places = torch.arange(ids.shape[1], device=ids.device)
        features = self.embedding(ids) + self.places(places)
        padding = places >= lengths[:, None]
        for layer in self.layers:
            features = layer(features, src_key_padding_mask=padding)
        logits: Tensor = self.head(self.dropout(mean_over_words(self.norm(features), lengths)))
        return logits


def trim(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (N, L) without the columns in which all are padding, and the number of words of each text (N,), at least 1.

    >>> trim(torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]))
    (tensor([[5, 6],
            [7, 0],
            [0, 0]]), tensor([2, 1, 1]))
    """
    lengths = (ids != 0).sum(dim=1).clamp(min=1)
    # An exported graph is of one width, whatever it is given: what is cut off here only saves time.
    return ids if torch.compiler.is_exporting() else ids[:, : int(lengths.max())], lengths


def reverse_words(features: Tensor, lengths: Tensor) -> Tensor:
    """Features (N, L, C) with the words of each text in reverse, and its padding where it was."""
    places = torch.arange(features.shape[1], device=features.device).expand(features.shape[:2])
    mirrored = lengths[:, None] - 1 - places
    source = torch.where(mirrored >= 0, mirrored, places)
    return features[torch.arange(features.shape[0], device=features.device)[:, None], source]


def mean_over_words(features: Tensor, lengths: Tensor) -> Tensor:
    """Features (N, L, C) -> their mean over the first ``lengths`` (N,) places of each text (N, C)."""
    is_word = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
    return features.masked_fill(~is_word[:, :, None], 0.0).sum(dim=1) / lengths[:, None]
