"""Policies decide: pure rules over values, without I/O, clock or randomness."""
