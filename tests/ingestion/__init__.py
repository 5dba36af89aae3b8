"""Landing, on real servers: what comes in, what is kept, and what the ledger says of it."""
