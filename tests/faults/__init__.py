"""A racing load on few accounts, while faults are injected into real servers; and what must be true afterwards.

Several processes, with threads and tasks in them, admit, settle, release, extend, buy and refund through one
database with Redis in front. Meanwhile the conductor (the test) hangs, kills, empties and fails over Redis, loses
replies and connections, kills PostgreSQL in mid-transaction, and kills the workers themselves. Then the bare rows are
read and everything is counted again, by code that shares nothing with the engine.

Replayable, from one seed: which operation each lane does as its n-th, under which key and with which arguments
(plan.py); which faults come in which order, how many operations apart, and which worker is killed; how far the clock
is advanced between which counts of operations. Not replayable: how the operations of several lanes interleave, and
which of them a fault meets, because real processes run on a real machine. A failure prints how to run its seed again.

    COMPTROLLER_FAULTS_SEED=7       another seed than the default
    COMPTROLLER_FAULTS_ROUNDS=50    that many rounds of every scenario: a soak
"""
