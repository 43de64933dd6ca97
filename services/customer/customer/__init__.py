"""Who is the same person, which source is believed: institutions, source records, golden customers, the intake of activities."""
