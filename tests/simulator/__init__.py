"""A simulator of the points ledger: a seeded load, several writers at once, crashes, duplicates, a virtual clock, and a model
that decides every operation of the log anew."""
