"""Whether, when and through whom a customer is contacted; the history of every contact."""
