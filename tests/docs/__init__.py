"""Documentation says what the code does: names that it must mention, and links that must lead somewhere."""
