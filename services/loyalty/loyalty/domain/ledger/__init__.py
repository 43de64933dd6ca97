"""The ledger's arithmetic, pure: commands in, operations, entries and lots out, exactly as if they came one after another."""
