"""Sabotage: break each guarantee on purpose, and see its test turn red.

A guarantee whose sabotage passes unnoticed is not tested. `python -m tests.sabotage` (or `make
sabotage`) applies each entry of sabotages.toml to a copy of the project, runs the tests that must
notice, and fails when one does not. The working tree is never touched.

An entry:

    [[sabotage]]
    name = "limit-off-by-one"             # unique; --only limit-off-by-one tries it alone
    guarantee = "exact"                   # as in tests/architecture/guarantees.py
    file = "policies/kinds/allowance.py"  # from the project's root
    find = "if used + asked > limit:"     # part of one line, in exactly one place of the file
    replace = "if used + asked > limit + 1:"
    tests = ["tests/policies/test_allowance.py::test_guarantee_exact_at_the_limit"]

`tests` holds pytest node ids, or `-k` expressions (what has no `::` and does not end in `.py`):
`tests = ["test_guarantee_exact"]`. Each of them must turn red, by a failing test: a copy that
cannot even be collected is reported as broken, since it proves nothing. Before the first sabotage
the same tests run on an unchanged copy, where they must be green.

TOML's literal strings keep quotes and backslashes as they are: find = 'at < "end"'.
"""
