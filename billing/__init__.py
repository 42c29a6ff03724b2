"""Billing keeps the books: lots, transfers, purchases and statements."""
