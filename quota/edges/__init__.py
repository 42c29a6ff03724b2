"""The edges: where Comptroller meets people and other programs."""
