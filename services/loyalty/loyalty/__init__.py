"""What a customer owns in points, and who owes whom: accounts, the double-entry ledger, earning and redeeming."""
