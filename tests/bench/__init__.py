"""Benchmarks: ratios against a floor or a peer that runs in the same process and the same minute, never a bare time.

    make bench                               all of them, with a table
    python -m tests.bench decision           one of them
    python -m tests.bench --json FILE        the figures for machines

Blocks of the two sides alternate, and the ratio is the median over rounds, so that a busy neighbour slows both.
"""
