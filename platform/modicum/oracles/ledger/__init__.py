"""The ledger: a durable record of every request and every human answer."""
