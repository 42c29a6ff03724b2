"""The Comptroller's methods, grouped by what they are about: requests, grants, accounts, credits, questions."""
