"""Planted bugs: what this store must not do, done on purpose in a copy, to see which test notices.

    make mutants                                    # all of them, in a quarter of an hour on two cores
    python -m tests.mutants --only grace-ignored    # one
    python -m tests.mutants --survey                # which of them do seeds alone find, and how soon?

A test that passes everything proves nothing. Each `*.toml` here lists bugs as data: a name, what it
breaks, the exact source text to replace, its replacement, and who is expected to notice.

    the tree ──copy──► unmutated: every catcher must pass, or nothing is proven
                └─copy──► mutant: its catchers in turn, until one fails

`listing.py` is pure, `runner.py` copies and runs, `seeds.py` is the catcher that is no test.
"""
