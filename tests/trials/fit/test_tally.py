"""What an epoch came to, counted once whatever ranks share it."""

from __future__ import annotations

import torch

from trials.fit.distributed import ALONE, Ranks
from trials.fit.tally import Tally

CPU = torch.device("cpu")


def test_what_one_process_left_unread_is_in_the_sums_of_one_rank_only() -> None:
    tally = Tally(1, ALONE, steps_between_reads=20)
    tally.add_batch(4, torch.tensor(2.0), torch.tensor(3.0))
    tally.add_step(True, torch.tensor(0.5), lr=0.1)
    saved = tally.state()
    states = []
    for rank in (0, 1):
        one = Tally(1, Ranks(rank, 2), steps_between_reads=20)
        one.load_state(saved, CPU)
        states.append(one.state())
    assert states[0] == saved
    assert states[1] == {**saved, "pending": [[1, 4, torch.tensor(0.0), torch.tensor(0.0)]]}
