"""Group commit: concurrent calls about different accounts share a transaction, and with it its round trips and commit.

`queue` gathers calls while a transaction is under way, `batch` makes them within one, `side_by_side` lets each believe
that it has the transaction for itself, and `works` says what a call does within it. No answer differs from that of a
call alone: what cannot be done with the others is done alone afterwards.
"""
