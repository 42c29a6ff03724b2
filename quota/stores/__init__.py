"""The databases that books are kept in: one interface, a module for each kind, and the choice between them."""
