"""Tests of the edges: the command line."""
