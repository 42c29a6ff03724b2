"""Redis in front of SQL: it answers denials, and SQL makes every grant.

One script decides over one key per account, which holds what SQL last said of the account and what has been asked
of it since. Whatever it is not sure of goes on to SQL; losing it changes cost, never an answer.
"""
