"""The rules: pure Python, time and money in, decisions out."""
