"""A small product on Comptroller: videos for a daily allowance, and packs for who wants more."""
