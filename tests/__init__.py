"""The tests of Comptroller."""
