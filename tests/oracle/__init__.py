"""Oracles: what each table must hold by SPEC, in plain Python, independent of all other code."""
