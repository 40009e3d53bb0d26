"""Closing a ledger that another thread writes to."""

import asyncio

import pytest

from modicum.errors import InputError
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.ledger.writer import LedgerWriter


def test_a_ledger_that_was_closed_can_be_opened_again_by_the_same_process(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def use() -> None:
        writer = LedgerWriter(path)
        await writer.run(Ledger.spent)
        with pytest.raises(InputError, match="in use by process"):
            Ledger(path)
        writer.close()

    for _ in range(2):
        asyncio.run(use())
