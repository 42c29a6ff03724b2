"""Re-deriving grants, holds and settings from a book's records, to compare them with the tables."""
