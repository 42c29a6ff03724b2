"""The schema's history, by Alembic, and the triggers that it cannot see."""
